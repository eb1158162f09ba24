"""Standard input, output and error, which may be closed, full, or of any encoding."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

__all__ = ["open_standard_files", "printing"]

# Why a write fails; an error of a file of ours would have its name.
_WRITING = frozenset((errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF))


def printing(program: str, run: Callable[[], int]) -> int:
    """Run a whole program, and return its exit code; 1 if its output cannot be written.

    What the encoding of the output lacks is escaped. A reader that has gone, as in `list | head`,
    has what it wanted: that is 0. An output that was closed at the start, `>&-`, takes nothing.

    Args:
        program: its name, for the message.
        run: parses the arguments, prints, and returns the exit code or raises SystemExit.

    """
    open_standard_files()
    for stream in (sys.stdout, sys.stderr):
        _escape_what_is_lacking(stream)
    code, raised = 0, None
    try:
        code = run()
    except (OSError, SystemExit) as error:
        raised = error
    failure = _failure_of_output(raised)
    if failure is None:
        if raised:
            raise raised
        return code
    _discard_output()
    if isinstance(failure, BrokenPipeError):
        return 0
    with suppress(OSError):  # standard error may be full as well
        print(f"{program}: cannot write the output: {failure.strerror or failure}", file=sys.stderr)
    return 1


def open_standard_files() -> None:
    """Open descriptors 0 to 2 if they are closed, before anything else gets their numbers.

    C libraries write to 2 whatever it is: a connection, or a file of the store.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(descriptor, True)  # for the processes that this one starts
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stderr is None:  # what is printed to None comes out at standard output
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _failure_of_output(raised: BaseException | None) -> OSError | None:
    """Write what is left; return why standard output takes no more, None if it does."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return error
    # What was too long for the buffer is not in it, and does not fail again.
    if isinstance(raised, OSError) and raised.filename is None and raised.errno in _WRITING:
        return raised
    return None


def _escape_what_is_lacking(stream: TextIO | None) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let the interpreter flush what is left to nowhere when it exits."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
