"""Standard output and error, which may be closed, full, or of any encoding."""

import os
import sys
from collections.abc import Callable
from typing import TextIO

__all__ = ["open_standard_files", "printing"]


def printing(program: str, run: Callable[[], int]) -> int:
    """Run a command that prints, and return its exit code; 1 if its output cannot be written.

    What the encoding of the output lacks is escaped. A reader that has gone, as in `list | head`,
    has what it wanted: that is 0.

    Args:
        program: Its name, for the message.
        run: Prints, and returns the exit code.

    """
    for stream in (sys.stdout, sys.stderr):
        _escape_what_is_lacking(stream)
    try:
        code = run()
        if sys.stdout is not None:  # None: closed by the caller, `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise  # not of the output
        _discard_output()
        print(f"{program}: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return 1
    return code


def open_standard_files() -> None:
    """Open descriptors 0 to 2 if they are closed, before anything else gets their numbers.

    C libraries write to 2 whatever it is: a connection, or a file of the store.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one


def _escape_what_is_lacking(stream: TextIO | None) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let the interpreter flush what is left to nowhere when it exits."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
