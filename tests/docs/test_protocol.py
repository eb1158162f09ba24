"""docs/protocol.md names tests that there are."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "protocol.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| cl")]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_named_test_exists(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (TESTS / file).read_text()


@pytest.mark.parametrize("row", ROWS)
def test_every_clause_names_a_test(row: str) -> None:
    assert re.search(r"\.py::test_\w+` \|$", row)
