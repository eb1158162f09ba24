"""The arguments of mlpserve-client."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mlpserve_client import __version__
from mlpserve_client._settings import DEFAULT_TARGET, DEFAULT_TIMEOUT, MAX_TIMEOUT

_MAX_VERSION = 10**18 - 1  # as in the store
_EPILOG = """
Every connection setting is also an environment variable; a flag wins over it. MLPSERVE_TOKEN is the
token itself: it has no flag, because other users can see a command line.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = _Parser(prog="mlpserve-client", description="Calls a model server.")
    text = f"mlpserve-client {__version__}"
    top.add_argument("--version", action="version", version=text, help="print the version")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, add in (
        ("predict", "classify images and arrays", _add_predict),
        ("explain", "show which values of an input its answer came from", _add_explain),
        ("report", "report what the truth about an answer was", _add_report),
        ("models", "list the server's models, each with the version that answers", _add_json),
        ("versions", "list the versions of a model in the store", _add_json),
        ("model", "describe one version", _add_model),
        ("health", "exit with 0 if a server is ready, with 1 if not: for probes", _add_health),
        ("bench", "measure a server's throughput and latency", _add_bench),
    ):
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        command.usage = "%(prog)s [--FLAG ...]"  # all of them are listed below it
        add(command)
        _add_connection(command)
    return top


class _Parser(argparse.ArgumentParser):
    """Takes whole option names only, and reports wrong usage in one line.

    As the SettingsParser of the other programs, which the client may not import.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **kwargs,
            allow_abbrev=False,
            epilog=_EPILOG,
        )

    def parse_args(  # type: ignore[override]  # argparse's overloads say no more than this
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse the arguments; an option that is not known ends with the nearest one that is."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [f"--{name.replace('_', '-')}" for name in vars(options)]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            program = f"{self.prog} {options.command}"
            message = f"unrecognized argument {unknown[0]}{hint}"
            self.exit(2, f"{program}: {message} (see {program} --help)\n")
        return options

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        if message.startswith("argument COMMAND: invalid choice"):
            message += "; options come after the command"  # which an option's value was taken for
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores every error of a write; a help longer than a buffer would be lost so.
        if file is not None and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Before Python 3.13 argparse drops the value of `--option=--` and goes on with a list.
        if action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)


def _between(low: float, high: float, kind: type[int] | type[float]) -> Callable[[str], float]:
    noun = "an integer" if kind is int else "a number"

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"invalid value {text!r}: expected {noun} from {low:g} to {high:g}"
            )
        return value

    vars(number)["accepts"] = f"{low:,} to {high:,}"  # for the reference of settings
    return number


def _add_connection(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("connection")
    group.add_argument(
        "--target",
        action="append",
        metavar="HOST:PORT",
        help="address of a server; repeat it or use commas for several "
        f"[default {DEFAULT_TARGET}; MLPSERVE_TARGET]",
    )
    group.add_argument(
        "--model",
        metavar="NAME",
        help="name of the model [default the server's only or default one; MLPSERVE_MODEL]",
    )
    group.add_argument(
        "--timeout",
        type=_between(0, MAX_TIMEOUT, float),
        metavar="SECONDS",
        help=f"time limit of each request [default {DEFAULT_TIMEOUT:g}; MLPSERVE_TIMEOUT]",
    )
    group.add_argument(
        "--tls", action="store_true", help="encrypt the connection [default off; MLPSERVE_TLS=1]"
    )
    for flag, metavar, text in (
        ("--tls-ca", "FILE", "certificates to trust [default gRPC's own; MLPSERVE_TLS_CA]"),
        (
            "--tls-cert",
            "FILE",
            "the client's certificate, for mutual TLS [no default; MLPSERVE_TLS_CERT]",
        ),
        (
            "--tls-key",
            "FILE",
            "private key of the client's certificate [no default; MLPSERVE_TLS_KEY]",
        ),
        (
            "--tls-server-name",
            "NAME",
            "name in the server's certificate [default the target's; MLPSERVE_TLS_SERVER_NAME]",
        ),
        (
            "--token-file",
            "FILE",
            "file with a bearer token in its first line [no default; MLPSERVE_TOKEN_FILE]",
        ),
    ):
        group.add_argument(flag, metavar=metavar, help=text)


def _add_selector(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--version",
        type=_between(1, _MAX_VERSION, int),
        metavar="N",
        help="use this version [default the one being served]",
    )
    group.add_argument("--alias", metavar="NAME", help="use the version that this alias points at")


def _add_json(command: argparse._ActionsContainer) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _add_sources(command: argparse.ArgumentParser) -> None:
    command.usage = "%(prog)s [--FLAG ...] [FILE ...]"
    command.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="PNG, JPEG, .npy, .npz (array X or the only one) or IDX, gzipped too; - is stdin",
    )
    command.add_argument(
        "--demo",
        action="store_true",
        help="use a few drawn digits or, if the model is not of digits, its golden inputs",
    )
    command.add_argument(
        "--store",
        metavar="FOLDER",
        default=os.environ.get("MLPSERVE_STORE") or "models",
        help="the store, for the golden inputs of --demo [default models; MLPSERVE_STORE]",
    )
    command.add_argument("--index", metavar="I", help="rows to use: 7, or 0:10 [default all]")


def _add_predict(command: argparse.ArgumentParser) -> None:
    _add_sources(command)
    output = command.add_mutually_exclusive_group()
    _add_json(output)
    output.add_argument("--csv", action="store_true", help="print CSV, one row an instance")
    command.add_argument(
        "--receipt", action="store_true", help="request receipts and print them, for report"
    )
    _add_selector(command)


def _add_explain(command: argparse.ArgumentParser) -> None:
    _add_sources(command)
    command.add_argument(
        "--label",
        metavar="CLASS",
        help="number or name of the class to explain [default the predicted one]",
    )
    _add_json(command)
    _add_selector(command)


def _add_report(command: argparse.ArgumentParser) -> None:
    command.usage = "%(prog)s [--FLAG ...] RECEIPT\n  (--class NAME | --right | --wrong)"
    command.add_argument("receipt", metavar="RECEIPT", help="as `predict --receipt` prints it")
    truth = command.add_mutually_exclusive_group(required=True)
    truth.add_argument("--class", dest="class_name", metavar="NAME", help="the true class")
    truth.add_argument("--right", action="store_true", help="the answer was right")
    truth.add_argument("--wrong", action="store_true", help="the answer was wrong")
    command.add_argument(
        "--instance",
        metavar="FILE",
        help="send what was classified as well, to learn from: a file, as for predict",
    )
    command.add_argument(
        "--index", metavar="I", help="row of the file that was classified [default the only one]"
    )
    command.add_argument("--note", default="", metavar="TEXT", help="free text for people")
    _add_json(command)


def _add_model(command: argparse.ArgumentParser) -> None:
    _add_json(command)
    _add_selector(command)


def _add_health(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--live", action="store_true", help="check that the server is alive, with a model or not"
    )


def _add_bench(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seconds",
        type=_between(0.001, 86400, float),
        default=5.0,
        metavar="S",
        help="duration [default %(default)s]",
    )
    command.add_argument(
        "--threads",
        type=_between(1, 1024, int),
        default=8,
        metavar="N",
        help="number of callers, each with one call at a time [default %(default)s]",
    )
    command.add_argument(
        "--batch",
        type=_between(1, 1_000_000, int),
        default=1,
        metavar="ROWS",
        help="rows of each call; 1 calls Predict, more BatchPredict [default %(default)s]",
    )
    _add_json(command)
