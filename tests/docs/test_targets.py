"""Every make target that a document, CI or the release names is one of the Makefile."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PLACES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / ".github").rglob("*.yml"),
    ROOT / ".ci" / "run",
]


def named(text: str) -> set[str]:
    """Return the targets that a text calls: in backquotes, or at the start of a command."""
    return set(re.findall(r"(?:`|^ *(?:- run: |step )?)make ([a-z][a-z-]*)", text, re.MULTILINE))


@pytest.mark.parametrize("place", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_targets_exist(place: Path) -> None:
    assert named(place.read_text()) <= TARGETS


def test_the_release_checks_tests_and_builds() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert {"check", "test", "dist", "test-compose", "sbom"} <= named(workflow)


def test_every_target_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text()
    silent = {name for name in TARGETS if not re.search(rf"^{name}:.*## .", text, re.MULTILINE)}
    assert not silent
