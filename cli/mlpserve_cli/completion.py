"""Completion scripts for shells, made from the parsers of all commands."""

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module

from mlpserve_cli.commands import COMMANDS, Command

__all__ = ["main"]

SHELLS = ("bash", "zsh", "fish")


def main(arguments: Sequence[str]) -> int:
    """Print the completion script for a shell.

    Commands whose packages are not installed are completed by name alone.
    """
    parser = argparse.ArgumentParser(
        "mlpserve completion",
        description="Print a completion script.",
        epilog="bash: source <(mlpserve completion bash)",
    )
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(arguments).shell
    try:
        import shtab
    except ModuleNotFoundError:
        print(
            "mlpserve completion: the package 'shtab' is not installed; "
            "in a checkout: pip install '.[completion]'",
            file=sys.stderr,
        )
        return 1
    print(shtab.complete(_whole(), shell))
    return 0


def _whole() -> argparse.ArgumentParser:
    """Return one parser with every command below it; it is only read, never run."""
    whole = argparse.ArgumentParser("mlpserve")
    commands = whole.add_subparsers()
    for command in COMMANDS.values():
        known = _parser_of(command)
        commands.add_parser(
            command.name,
            help=command.help,
            parents=[known] if known else [],
            add_help=known is None,
            conflict_handler="resolve",
        )
    commands.add_parser("doctor", help="check this installation")
    commands.add_parser("completion").add_argument("shell", choices=SHELLS)
    return whole


def _parser_of(command: Command) -> argparse.ArgumentParser | None:
    try:
        parser: argparse.ArgumentParser = import_module(command.module).parser()
    except ModuleNotFoundError:
        return None
    for word in command.words:
        parser = _subparsers(parser)[word]
    _complete_files(parser)
    return parser


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let shells offer files for every value that is not one of a few, as they do without us."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below)
        elif action.dest in _names():
            action.choices = _names()[action.dest]  # for shells alone: this parser is only read
        elif action.nargs != 0 and not action.choices:
            vars(action)["complete"] = shtab.FILE


@cache
def _names() -> dict[str, list[str]]:
    """Return the names that are offered for an option, by its destination."""
    try:
        from mlpserve_trainer import recipe_names
        from mlpserve_trainer.datasets import DATASETS
    except ImportError:
        return {}
    return {"dataset": list(DATASETS), "recipe": list(recipe_names())}


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
