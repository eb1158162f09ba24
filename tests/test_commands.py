"""Every command can also be run as a module of its package."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

import pytest

from mlpserve_client._cli import main as client
from mlpserve_model import cli as models
from mlpserve_server.settings import read_settings, settings_parser
from mlpserve_trainer import cli as trainer
from mlpserve_web.settings import settings_parser as web_parser

COMMANDS = {
    "mlpserve_client": "mlpserve-client",
    "mlpserve_model": "mlpserve-models",
    "mlpserve_server": "mlpserve-server",
    "mlpserve_trainer": "mlpserve-trainer",
}


@pytest.mark.parametrize(("package", "command"), COMMANDS.items())
def test_a_package_runs_as_its_command(package: str, command: str) -> None:
    run = [sys.executable, "-P", "-m", package, "--version"]
    ended = subprocess.run(run, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{command} {version('mlpserve')}\n"


def numbers(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    """The words that lead up to a number, for every number that a command takes."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                required = [a for a in sub._actions if a.required and a.option_strings]
                rest = [f"{a.option_strings[-1]}=1" for a in required]
                yield from ([name, *rest, *words] for words in numbers(sub))
        elif is_number(action):
            yield [f"{action.option_strings[-1]}="] if action.option_strings else [""]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


@pytest.mark.parametrize(
    "program", [settings_parser, trainer.parser, models.parser, web_parser, client.parser]
)
def test_a_usage_line_is_short_in_a_narrow_terminal_too(
    program: Callable[[], argparse.ArgumentParser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    for parser in parsers(program()):
        lines = parser.format_usage().splitlines()
        assert len(lines) <= 5
        assert all(len(line) <= 60 for line in lines)
        required = [a for a in parser._actions if a.required and a.option_strings]
        assert all(any(a.option_strings[-1] in line for line in lines) for a in required)


def is_number(action: argparse.Action) -> bool:
    try:
        return isinstance(action.type("1"), int | float) if callable(action.type) else False
    except (ValueError, argparse.ArgumentTypeError):
        return False


NUMBERS = [
    pytest.param(main, words, id=" ".join((command, *words)))
    for command, main, parser in (
        ("mlpserve-server", read_settings, settings_parser()),
        ("mlpserve-trainer", trainer.main, trainer.parser()),
        ("mlpserve-models", models.main, models.parser()),
        ("mlpserve-client", client.main, client.parser()),
    )
    for words in numbers(parser)
]


BEYOND = ["1e300", "9" * 40, "9" * 5000, "inf", "nan", "--"]


@pytest.mark.parametrize(("main", "words"), NUMBERS)
def test_every_number_has_an_upper_bound_that_is_checked_at_the_start(
    main: Callable[[list[str]], object],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # To the last place: a number far beyond the bound is wrong usage, whatever else is right.
    for value in BEYOND:
        try:
            code = main([*words[:-1], words[-1] + value])
        except SystemExit as end:
            code = end.code
        error = capsys.readouterr().err
        assert code == 2, (value[:40], error)
        assert words[-1].strip("-=").replace("-", "_") in error.replace("-", "_")


@pytest.mark.parametrize("package", ["mlpserve_client", "mlpserve_model", "mlpserve_trainer"])
def test_an_option_before_the_command_is_told_its_place(package: str) -> None:
    command = [sys.executable, "-P", "-m", package, "--store", "elsewhere", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "options come after the command" in done.stderr
