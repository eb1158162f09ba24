"""Documents, code and messages are plain: no phrase that a native reader stumbles over."""

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
STUMBLES = re.compile(
    r"\b(whoever|anew|for want of|stops to|once more)\b"
    r"|\b(is|are) no (list|file|certificate|token|duration|archive)\b",
    re.IGNORECASE,
)


FOLDERS = ["benchmarks", "cli", "client", "deploy", "docs", "examples", "model", "proto", "server"]
FOLDERS += ["tests", "trainer", "web"]
KINDS = {".css", ".html", ".ipynb", ".js", ".md", ".proto", ".py", ".sh", ".toml", ".yaml", ".yml"}
# Words that a reader of code looks up in vain: the field has others, such as MAX_X, poll, notify.
PICTURES = [
    r"\b_?(MOST|LONGEST|LARGEST|SHORTEST)(_[A-Z]+)*\b",
    r"\bdef _?(ask|doubt|forget|glance|hear|look|tell)(_\w+)?\(",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_phrase_makes_a_reader_stumble(document: Path) -> None:
    text = " ".join(document.read_text().split())
    assert not (found := STUMBLES.search(text)), around(found, text)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_phrase_in_code_or_messages_makes_a_reader_stumble(folder: str) -> None:
    files = [f for f in (ROOT / folder).rglob("*") if f.suffix in KINDS and f != Path(__file__)]
    assert files
    for path in files:
        text = " ".join(re.sub(r"\n *(#|//)? ?", " ", path.read_text()).split())
        assert not (found := STUMBLES.search(text)), (path, around(found, text))


def around(found: re.Match[str], text: str) -> str:
    return text[max(found.start() - 40, 0) : found.end() + 40]


@pytest.mark.parametrize("folder", sorted({*FOLDERS} - {"docs", "tests"}))
def test_names_in_code_are_the_fields_words(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for picture in PICTURES:
            assert not (found := re.search(picture, path.read_text())), (path, found)


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_nothing_tells_to_install_what_is_on_no_index() -> None:
    folders = ("cli", "client", "deploy", "docs", "model", "server", "trainer", "web", "examples")
    files = chain.from_iterable((ROOT / folder).rglob("*") for folder in folders)
    texts = [*ROOT.glob("*.md"), *(f for f in files if f.suffix in {".py", ".md", ".service"})]
    hint = re.compile(r"install [\"\']?mlpserve\b|mlpserve\[")
    allowed = {ROOT / "docs" / "faq.md"}  # which says that it does not work
    assert not [path for path in texts if path not in allowed and hint.search(path.read_text())]
