"""docs/operations.md lists what there is: every setting, every event of the log."""

import argparse
import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import mlpserve_model
import mlpserve_server
from mlpserve_server.observability.aggregation import MAX_VERSIONS
from mlpserve_server.observability.metrics import METHODS, METRICS
from mlpserve_server.observability.recorder import MAX_CLASS_LENGTH, MAX_CLASSES
from mlpserve_server.settings import settings_parser

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
CODE = [Path(str(package.__file__)).parent for package in (mlpserve_server, mlpserve_model)]
LEVELS = {"debug", "info", "warning", "error", "exception"}
# What the formatter makes of an exception, and what depends on circumstances.
OF_EXCEPTIONS = {"error", "at"}


def table(heading: str) -> list[list[str]]:
    """The rows of the table under this heading, without the backquotes."""
    section = DOCUMENT.read_text().split(f"\n### {heading}\n")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
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


def test_every_setting_stands_in_the_document_with_its_default() -> None:
    described = {
        unquoted(flag): unquoted(default) for flag, default, _ in table("Settings of the server")
    }
    shown = {
        action.option_strings[-1]: "" if action.default is None else str(action.default)
        for action in settings_parser()._actions
        if action.help != argparse.SUPPRESS
        and not {"--help", "--version"} & set(action.option_strings)
    }
    shown["--workers"] = "the usable cores"
    assert described == shown


def test_every_metric_stands_in_the_document_with_its_kind_and_labels() -> None:
    described = {
        unquoted(name): (kind, re.findall("`([^`]+)`", labels))
        for name, kind, labels, _ in table("Metrics")
    }
    assert described == {m.name: (m.kind, list(m.labels)) for m in METRICS.values()}


def test_the_document_names_all_methods_and_bounds_of_labels() -> None:
    text = DOCUMENT.read_text()
    assert all(f"`{method}`" in text for method in METHODS.values())
    assert f"the {MAX_VERSIONS} versions with the highest numbers" in text
    assert f"the first {MAX_CLASSES} classes of each, cut at {MAX_CLASS_LENGTH} characters" in text


def test_every_event_of_the_log_stands_in_the_document_with_its_level() -> None:
    described = {(unquoted(event), level) for event, level, *_ in table("Log events")}
    assert described == {(event, level) for event, level, _ in calls_of_the_log()}


def test_every_field_that_an_event_names_stands_in_the_document() -> None:
    fields = {unquoted(event): quoted(names) for event, _, names, _ in table("Log events")}
    for event, _, call in calls_of_the_log():
        for keyword in call.keywords:
            if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                named = {ast.literal_eval(key) for key in keyword.value.keys if key}
                assert named == fields[event] - OF_EXCEPTIONS, event
            if keyword.arg == "exc_info":
                assert fields[event] >= OF_EXCEPTIONS, event
