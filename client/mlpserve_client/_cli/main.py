"""The command mlpserve-client.

Exit codes: 0 done; 1 failed, with one line on stderr that says why; 2 wrong usage;
130 interrupted.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from mlpserve_client._cli.arguments import parser
from mlpserve_client._cli.text import printable
from mlpserve_client._errors import MlpserveError, SettingsError
from mlpserve_client._settings import Tls, read_token, resolve

__all__ = ["main", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    _open_standard_files()
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    try:
        try:
            arguments = parser().parse_args(argv)
        except SystemExit:  # as --help ends
            if sys.stdout is not None:
                sys.stdout.flush()
            raise
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            code = _run(arguments)
        _flush()
    except SettingsError as error:
        return _failed(f"{error} (see mlpserve-client --help)", 2)
    except MlpserveError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_output()
        return 0  # the reader needs no more, as in `predict | head`
    except OSError as error:
        _discard_output()
        return _failed(f"cannot write the output: {error.strerror or error}")
    return code


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "health":
        # In a server's container it has the server's names and patterns.
        os.environ.pop("MLPSERVE_MODEL", None)
    settings = resolve(
        os.environ,
        target=arguments.target and ",".join(arguments.target),
        timeout=arguments.timeout,
        tls=_tls(arguments),
        token=arguments.token_file and read_token(arguments.token_file),
        model=arguments.model,
    )
    # What gRPC logs about a connection that fails is in the error as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Only now: --help and wrong usage need neither gRPC nor NumPy.
    from mlpserve_client._cli.commands import COMMANDS
    from mlpserve_client._sync import Client

    with Client(
        settings.targets,
        timeout=settings.timeout,
        tls=settings.tls,
        token=settings.token,
        model=settings.model,
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


def _failed(text: str, code: int = 1) -> int:
    print(f"mlpserve-client: {printable(text)}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"mlpserve-client: warning: {printable(str(message))}", file=sys.stderr)


def _open_standard_files() -> None:
    """Open descriptors 0 to 2 if they are closed, before a connection gets their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stderr is None:  # what is printed to None comes out at standard output
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _never_fail_to_encode(stream: TextIO | None) -> None:
    """Escape what a stream's encoding lacks, such as ASCII's or a Windows code page's."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def _flush() -> None:
    if sys.stdout is None:  # closed by the caller: `>&-`
        raise OSError(0, "standard output is closed")
    sys.stdout.flush()


def _discard_output() -> None:
    """Let the interpreter flush what is left to nowhere when it exits."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
