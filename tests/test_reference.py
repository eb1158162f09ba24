"""The reference lists what there is: every setting, metric and event of the log."""

import ast
import re
import runpy
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import mlpserve_model
import mlpserve_server

ROOT = Path(__file__).parents[1]
DOCUMENT = Path(__file__).parents[1] / "docs" / "reference" / "events.md"
CODE = [Path(str(package.__file__)).parent for package in (mlpserve_server, mlpserve_model)]
LEVELS = {"debug", "info", "warning", "error", "exception"}
# What the formatter makes of an exception, and what depends on circumstances.
OF_EXCEPTIONS = {"error", "at"}


def events() -> list[list[str]]:
    """The rows of the table, without the backquotes of its cells."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]
    assert rows
    return rows


def unquoted(cell: str) -> str:
    return cell.strip("`")


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def calls_of_the_log() -> Iterator[tuple[str, str, ast.Call]]:
    """Event, level and call of everything that the server and the store log."""
    for path in chain.from_iterable(folder.rglob("*.py") for folder in CODE):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                ) if level in LEVELS:
                    yield event, "error" if level == "exception" else level, node


def test_every_event_of_the_log_stands_in_the_document_with_its_level() -> None:
    described = {(unquoted(event), level) for event, level, *_ in events()}
    assert described == {(event, level) for event, level, _ in calls_of_the_log()}


def test_every_field_that_an_event_names_stands_in_the_document() -> None:
    fields = {unquoted(event): quoted(names) for event, _, names, _ in events()}
    for event, _, call in calls_of_the_log():
        for keyword in call.keywords:
            if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                named = {ast.literal_eval(key) for key in keyword.value.keys if key}
                assert named == fields[event] - OF_EXCEPTIONS, event
            if keyword.arg == "exc_info":
                assert fields[event] >= OF_EXCEPTIONS, event


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
