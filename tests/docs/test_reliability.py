"""docs/reliability.md: every bar has a test that exists and a twin, and every twin a row."""

import re
from pathlib import Path

import pytest

from tests.faults.test_twins import TWINS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()
BARS = re.findall(r"^\| (\d+) \|(.*)\|$", TEXT, re.MULTILINE)
CELLS = {number: [cell.strip() for cell in row.split(" | ")] for number, row in BARS}


def test_the_table_has_all_bars() -> None:
    assert list(CELLS) == [str(number) for number in range(1, 21)]


@pytest.mark.parametrize("number", CELLS)
def test_a_bar_has_a_test_that_exists_its_seconds_and_a_twin(number: str) -> None:
    bar, tests, seconds, measured, twin = CELLS[number]
    assert all((bar, seconds, measured, twin))
    folder, named = ROOT, re.findall(r"`([\w/]+(?:\.py)?)`", tests)
    assert named
    for name in named:  # the second of a folder is named without it
        path = ROOT / name if name.startswith("tests/") else folder / name
        assert path.exists(), name
        folder = path.parent


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_of_a_test_that_exists_and_in_the_row_of_its_bar(name: str) -> None:
    number, _, what = name.partition(" ")
    file, _, test = TWINS[name].test.partition("::")
    assert f"\ndef {test.partition('[')[0]}(" in (ROOT / "tests" / file).read_text()
    assert what in CELLS[number][-1]
