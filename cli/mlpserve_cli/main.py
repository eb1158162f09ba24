"""`mlpserve`: one command, with the programs of the project as its subcommands.

It only chooses the program: each keeps its own flags, variables and exit codes, and stays
available under its long name.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from mlpserve_cli.commands import COMMANDS, Command

__all__ = ["main"]

_OWN = {
    "doctor": "check Python, packages, store, ports, data and certificates",
    "completion": "print the completion script for bash, zsh or fish",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit code (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        return _run(name, rest)
    except KeyboardInterrupt:
        return 130


def _run(name: str, rest: Sequence[str]) -> int:
    if name in COMMANDS:
        return _run_program(COMMANDS[name], rest)
    from mlpserve_model.process.streams import printing  # only here: it takes NumPy along

    return printing("mlpserve", lambda: _run_own(name, rest))


def _run_own(name: str, rest: Sequence[str]) -> int:
    match name:
        case "-h" | "--help" | "help":
            print(_help())
            return 0
        case "--version":
            from mlpserve_model.process.versions import version_of

            print(f"mlpserve {version_of('mlpserve')}")
            return 0
        case "doctor":
            from mlpserve_cli.doctor import main as doctor

            return doctor(rest)
        case "completion":
            from mlpserve_cli.completion import main as completion

            return completion(rest)
    return _wrong_usage(name)


def _run_program(command: Command, arguments: Sequence[str]) -> int:
    try:
        return command.run(arguments)
    except ModuleNotFoundError as error:
        if not command.extra or (error.name or "").startswith("mlpserve"):
            raise
        print(
            f"mlpserve {command.name}: the package {error.name!r} is not installed; "
            f"in a checkout: pip install '.[{command.extra}]'",
            file=sys.stderr,
        )
        return 1


def _wrong_usage(name: str) -> int:
    near = get_close_matches(name, [*COMMANDS, *_OWN], n=1)
    hint = f"did you mean {near[0]}?" if near else "see mlpserve --help"
    print(f"mlpserve: there is no command {name!r}: {hint}", file=sys.stderr)
    return 2


def _help() -> str:
    texts = {name: command.help for name, command in COMMANDS.items()} | _OWN
    width = max(map(len, texts)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in texts.items()]
    return "\n".join(
        [
            "usage: mlpserve COMMAND [ARGUMENTS]",
            "",
            "Train, publish, serve and call small neural networks.",
            "",
            *lines,
            "",
            "mlpserve COMMAND --help lists the flags of a command.",
        ]
    )
