"""The reference lists what there is: every setting, metric and event of the log."""

import ast
import re
import runpy
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reference" / "events.md"
# The folders whose events stand under each heading.
CODE = {
    "Server and store": ["server/mlpserve_server", "model/mlpserve_model"],
    "Training": ["trainer/mlpserve_trainer"],
    "Schedule": ["trainer/mlpserve_trainer/schedule"],
    "Gateway": ["web/mlpserve_web"],
}
LEVELS = {"debug", "info", "warning", "error", "exception"}
# What the formatter makes of an exception, and what depends on circumstances.
OF_EXCEPTIONS = {"error", "at"}


def events(heading: str) -> list[list[str]]:
    """The rows of the table under this heading."""
    section = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]
    assert rows
    return rows


def unquoted(cell: str) -> str:
    return cell.strip("`")


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def files_of(heading: str) -> Iterator[Path]:
    """The source files under a heading; of a folder within another, only its own heading's."""
    own = [ROOT / folder for folder in CODE[heading]]
    others = [ROOT / folder for name in CODE if name != heading for folder in CODE[name]]
    inner = [folder for folder in others if any(outer in folder.parents for outer in own)]
    for path in chain.from_iterable(folder.rglob("*.py") for folder in own):
        if not any(folder in path.parents for folder in inner):
            yield path


def calls_of_the_log(heading: str) -> Iterator[tuple[str, str, ast.Call]]:
    """Event, level and call of everything that these folders log."""
    for path in files_of(heading):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=level),
                    args=[ast.Constant(value=str(event)), *more],
                ) if level in LEVELS:
                    assert not more, f"{event}: an event is a fixed sentence, with fields in extra"
                    yield event, "error" if level == "exception" else level, node


@pytest.mark.parametrize("heading", CODE)
def test_every_event_of_the_log_stands_in_the_document_with_its_level(heading: str) -> None:
    described = {(unquoted(event), level) for event, level, *_ in events(heading)}
    assert described == {(event, level) for event, level, _ in calls_of_the_log(heading)}


@pytest.mark.parametrize("heading", CODE)
def test_every_field_that_an_event_names_stands_in_the_document(heading: str) -> None:
    fields = {unquoted(event): quoted(names) for event, _, names, _ in events(heading)}
    for event, _, call in calls_of_the_log(heading):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        failed = "exc_info" in given or ast.unparse(call.func).endswith(".exception")
        of_exceptions = OF_EXCEPTIONS if failed else set()
        extra = given.get("extra")
        if isinstance(extra, ast.Dict):
            named = {ast.literal_eval(key) for key in extra.keys if key}
            assert named == fields[event] - of_exceptions, event
        assert fields[event] >= of_exceptions, event


@pytest.mark.parametrize("page", ["settings.md", "metrics.md"])
def test_a_generated_page_is_what_the_code_says(page: str) -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "tools" / "reference.py"))["PAGES"]
    path = ROOT / "docs" / "reference" / page
    assert path.read_text() == pages[path](), "run `make reference`"


def test_every_setting_has_a_line_of_its_own() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert not [row for row in rows if not row[1:-1].split("|")[4].strip()]
