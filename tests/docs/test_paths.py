"""Files that the documents name exist: a rename takes the documents along."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = [
    "benchmarks",
    "cli",
    "client",
    "deploy",
    "docs",
    "examples",
    "model",
    "proto",
    "server",
    "tests",
    "trainer",
    "web",
]
FILES = {
    "/" + str(path.relative_to(ROOT))
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.is_file()
}
NAMED = re.compile(r"`((?:[\w-]+/)*[\w-]+\.(?:py|proto|toml|sh|yml))`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":  # which names what there was
        return
    named = set(NAMED.findall(document.read_text()))
    ours = {name for name in named if name not in USERS and not (ROOT / name).exists()}
    assert not {name for name in ours if not any(file.endswith(f"/{name}") for file in FILES)}


# Files of the reader.
USERS = {"conftest.py"}
