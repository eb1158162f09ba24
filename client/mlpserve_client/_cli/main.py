"""The command mlpserve-client: its arguments and exit codes.

0: done. 1: failed, with one line on stderr that says why. 2: wrong usage. 130: Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from mlpserve_client import __version__
from mlpserve_client._errors import MlpserveError, SettingsError
from mlpserve_client._settings import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    MAX_TIMEOUT,
    Tls,
    read_token,
    resolve,
)

_MAX_VERSION = 10**18 - 1  # as in the store
_VARIABLES = """\
Every setting of a connection is also an environment variable; a flag wins over it:
  MLPSERVE_TARGET, MLPSERVE_TIMEOUT, MLPSERVE_TLS=1, MLPSERVE_TLS_CA, MLPSERVE_TLS_CERT,
  MLPSERVE_TLS_KEY, MLPSERVE_TLS_SERVER_NAME, MLPSERVE_TOKEN_FILE, and MLPSERVE_TOKEN
  (the token itself; there is no flag for it, because other users can see a command line).

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parser().parse_args(argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except SettingsError as error:
        print(f"mlpserve-client: {error}", file=sys.stderr)
        return 2
    except MlpserveError as error:
        print(f"mlpserve-client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted, as in `predict | head`; nothing is left to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    top = _Parser(
        prog="mlpserve-client",
        description="Calls a model server.",
        epilog=_VARIABLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = f"mlpserve-client {__version__}"
    top.add_argument("--version", action="version", version=text, help="print the version")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, add in (
        ("predict", "classify images and arrays", _add_predict),
        ("models", "list the versions in the store", _add_json),
        ("model", "describe one version", _add_model),
        ("health", "exit 0 if the server is ready, 1 if not: for probes", _add_health),
        ("bench", "measure a server: closed loop, percentiles", _add_bench),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=text.capitalize() + ".",
            epilog=_VARIABLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(command)
        _add_connection(command)
    return top


class _Parser(argparse.ArgumentParser):
    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Before Python 3.13 argparse drops the value of `--option=--` and goes on with a list.
        if action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)


def _between(low: float, high: float, kind: type[int] | type[float]) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {low:g} to {high:g}")
        return value

    number.__name__ = kind.__name__  # argparse puts it into its message
    return number


def _run(arguments: argparse.Namespace) -> int:
    settings = resolve(
        os.environ,
        target=arguments.target and ",".join(arguments.target),
        timeout=arguments.timeout,
        tls=_tls(arguments),
        token=arguments.token_file and read_token(arguments.token_file),
    )
    # Only now: --help and wrong usage need neither gRPC nor NumPy.
    from mlpserve_client._cli.commands import COMMANDS
    from mlpserve_client._sync import Client

    with Client(
        settings.targets, timeout=settings.timeout, tls=settings.tls, token=settings.token
    ) as client:
        return COMMANDS[arguments.command](client, arguments)


def _tls(arguments: argparse.Namespace) -> Tls | None:
    given = (
        arguments.tls_ca,
        arguments.tls_cert,
        arguments.tls_key,
        arguments.tls_server_name,
    )
    return Tls(*given) if arguments.tls or any(given) else None


def _add_connection(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("connection")
    group.add_argument(
        "--target",
        action="append",
        metavar="HOST:PORT",
        help="where the servers are; several: repeat it or use commas "
        f"[default {DEFAULT_TARGET}; MLPSERVE_TARGET]",
    )
    group.add_argument(
        "--timeout",
        type=_between(0, MAX_TIMEOUT, float),
        metavar="SECONDS",
        help=f"for each request [default {DEFAULT_TIMEOUT:g}; MLPSERVE_TIMEOUT]",
    )
    group.add_argument("--tls", action="store_true", help="encrypt [default off; MLPSERVE_TLS=1]")
    for flag, metavar, text in (
        ("--tls-ca", "FILE", "certificates to trust [default gRPC's own; MLPSERVE_TLS_CA]"),
        ("--tls-cert", "FILE", "our certificate, for mutual TLS [no default; MLPSERVE_TLS_CERT]"),
        ("--tls-key", "FILE", "its private key [no default; MLPSERVE_TLS_KEY]"),
        (
            "--tls-server-name",
            "NAME",
            "name in the server's certificate [default the target's; MLPSERVE_TLS_SERVER_NAME]",
        ),
        ("--token-file", "FILE", "bearer token, first line [no default; MLPSERVE_TOKEN_FILE]"),
    ):
        group.add_argument(flag, metavar=metavar, help=text)


def _add_selector(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--version",
        type=_between(1, _MAX_VERSION, int),
        metavar="N",
        help="this version [default the one being served]",
    )
    group.add_argument("--alias", metavar="NAME", help="the version that this alias points at")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="JSON, one object a line")


def _add_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="PNG, JPEG, .npy, .npz (array X or the only one) or IDX, gzipped too; - is stdin",
    )
    command.add_argument("--demo", action="store_true", help="draw a few digits and send them")
    command.add_argument(
        "--index", metavar="I", help="rows of an array: 7, or 0:10 [default all of them]"
    )
    output = command.add_mutually_exclusive_group()
    _add_json_to(output)
    output.add_argument("--csv", action="store_true", help="CSV, one row an instance")
    _add_selector(command)


def _add_json_to(group: argparse._MutuallyExclusiveGroup) -> None:
    group.add_argument("--json", action="store_true", help="JSON, one object a line")


def _add_model(command: argparse.ArgumentParser) -> None:
    _add_json(command)
    _add_selector(command)


def _add_health(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--live", action="store_true", help="is it alive, with a model to serve or not?"
    )


def _add_bench(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seconds",
        type=_between(0.001, 86400, float),
        default=5.0,
        metavar="S",
        help="how long [default %(default)s]",
    )
    command.add_argument(
        "--threads",
        type=_between(1, 1024, int),
        default=8,
        metavar="N",
        help="callers, each with one call at a time [default %(default)s]",
    )
    command.add_argument(
        "--batch",
        type=_between(1, 1_000_000, int),
        default=1,
        metavar="ROWS",
        help="rows a call; 1 calls Predict, more BatchPredict [default %(default)s]",
    )
    _add_json(command)
