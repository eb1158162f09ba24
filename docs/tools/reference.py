"""Write docs/reference/settings.md and metrics.md from the code; `make reference` runs it."""

import argparse
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from mlpserve_client._cli.arguments import parser as client_parser
from mlpserve_model.cli import parser as models_parser
from mlpserve_model.process.arguments import SettingsParser, variable_of
from mlpserve_server.observability.aggregation import MAX_VERSIONS
from mlpserve_server.observability.metrics import METHODS, METRICS
from mlpserve_server.observability.recorder import MAX_CLASS_LENGTH, MAX_CLASSES
from mlpserve_server.settings import settings_parser as server_parser
from mlpserve_trainer.cli import parser as trainer_parser
from mlpserve_trainer.recipes.recipe import Recipe
from mlpserve_trainer.schedule.metrics import Metrics
from mlpserve_web.settings import settings_parser as web_parser

__all__ = ["PAGES"]

FOLDER = Path(__file__).parents[1] / "reference"
NOTE = "<!-- Written by `make reference` from the code: change it there. -->"

SETTINGS = """# Settings

{note}

Every setting is a flag. Where a variable is named, it is an environment variable too; the flag
takes precedence, and an empty variable counts as unset. A switch is set by `1`, `true` or `yes`. A
value that is not accepted ends the program with exit code 2 at the start.

The client reads its token from `MLPSERVE_TOKEN` as well. There is no flag for it, because other
users of the machine can see command lines.
"""
METRICS_PAGE = """# Metrics

{note}

[Operations](../operations.md#metrics) says how to scrape them, and has queries, the dashboard and
the alerts.

## Server

Label cardinality is bounded, whatever clients send: `code` is one of gRPC's; `method` is one of
those below, or `other`; the {versions} versions with the highest numbers have labels of their own,
as have the first {classes} classes of each, cut at {length} characters; the rest is `other`. Health
checks and reflection are not counted.

Methods: {methods}.
"""


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    sections = [SETTINGS.format(note=NOTE)]
    for parser in (
        server_parser(),
        trainer_parser(),
        models_parser(),
        client_parser(),
        web_parser(),
    ):
        commands = _commands(parser)
        rows = _merged(commands)
        head = ["flag", "variable", "default", "accepts", "meaning"]
        if len(commands) > 1:
            head.append("commands")
        sections.append(f"## {parser.prog}\n\n{_table(head, rows)}")
    return "\n".join(sections)


def metrics_page() -> str:
    """Return docs/reference/metrics.md."""
    methods = ", ".join(f"`{method}`" for method in METHODS.values())
    text = METRICS_PAGE.format(
        note=NOTE,
        methods=methods,
        versions=MAX_VERSIONS,
        classes=MAX_CLASSES,
        length=MAX_CLASS_LENGTH,
    )
    head = ["metric", "kind", "labels", "meaning"]
    server = [[f"`{m.name}`", m.kind, _quoted(m.labels), m.help] for m in METRICS.values()]
    trainer = [
        [
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            _quoted(sorted({label for sample in family.samples for label in sample.labels})),
            family.documentation,
        ]
        for family in Metrics().registry.collect()
    ]
    return (
        f"{text}\n{_table(head, server)}\n## Schedule\n\n`mlpserve-trainer schedule` with "
        f"`--health-listen` shows these.\n\n{_table(head, trainer)}"
    )


PAGES = {FOLDER / "settings.md": settings_page, FOLDER / "metrics.md": metrics_page}


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a program; those below a command have its name before theirs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: dict[str, argparse.ArgumentParser] = {}
            for name, command in action.choices.items():
                below = _commands(command)
                is_group = below != {command.prog: command}
                found |= (
                    {f"{name} {n}": c for n, c in below.items()} if is_group else {name: command}
                )
            return found
    return {parser.prog: parser}


def _merged(commands: dict[str, argparse.ArgumentParser]) -> list[list[str]]:
    """Return the rows of all commands, each once, with the commands that have it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, parser in commands.items():
        for row in _rows(parser):
            found.setdefault(row, []).append(name)
    if len(commands) == 1:
        return [list(row) for row in found]
    everywhere = len(commands)
    return [
        [*row, "all" if len(names) == everywhere else ", ".join(f"`{n}`" for n in names)]
        for row, names in found.items()
    ]


def _rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:
        internal = action.help is argparse.SUPPRESS
        acts = isinstance(action, argparse._HelpAction | argparse._VersionAction)
        if not (internal or acts):
            yield _row(parser, action)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, ...]:
    flag = action.option_strings[-1] if action.option_strings else action.dest.upper()
    if isinstance(parser, SettingsParser):
        described = parser.described[action.dest]
        text, default, variable = described.help, described.default, variable_of(action) or ""
    else:
        text, default, variable = _from_help(action)
    return (
        f"`{flag}`",
        f"`{variable}`" if variable else "",
        f"`{default}`" if default else "required" if action.required else "",
        _accepts(action),
        text.replace("|", "\\|"),
    )


def _from_help(action: argparse.Action) -> tuple[str, str, str]:
    """Split what the client's help says: its text [default X; VARIABLE]."""
    text = (action.help or "") % {"default": action.default}
    match = re.fullmatch(r"(.*) \[(?:(?:default )?([^;]*?))(?:; (MLPSERVE_\w+)(?:=1)?)?\]", text)
    text, default, variable = match.groups() if match else (text, "", "")
    return text, "" if default == "no default" else default, variable or ""


def _accepts(action: argparse.Action) -> str:
    if action.choices:
        return _quoted(map(str, action.choices))
    knobs = {field.name: field.metadata for field in dataclasses.fields(Recipe)}
    known = knobs[action.dest].get("expected", "") if action.dest in knobs else ""
    return str(getattr(action.type, "accepts", known)).replace("one of ", "")


def _quoted(words: object) -> str:
    return ", ".join(f"`{word}`" for word in words)  # type: ignore[attr-defined]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
