"""The documents are short and plain: no phrase that a native reader stumbles over."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
STUMBLES = [
    r"\b(whoever|anew|for want of|stops to|once more)\b",
    r"\b(is|are) no (list|file|certificate|token|duration|archive)\b",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_phrase_makes_a_reader_stumble(document: Path) -> None:
    text = " ".join(document.read_text().split())
    for phrase in STUMBLES:
        found = re.search(rf".{{0,40}}{phrase}.{{0,40}}", text, re.IGNORECASE)
        assert not found, found


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
