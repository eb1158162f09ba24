"""Files that the user named: opened if they are regular files, and read as text or TOML."""

import difflib
import io
import tomllib
from pathlib import Path
from typing import Any

from mlpserve_model.process.tables import plain
from mlpserve_model.store.atomic_files import UnusableFile, open_regular
from mlpserve_trainer.errors import DataError, UsageError

__all__ = ["missing", "open_data", "read_text", "read_toml"]

MAX_TEXT_BYTES = 64 << 20


def open_data(path: Path) -> io.BufferedReader:
    """Open a file that the user named.

    Raises:
        DataError: it is not there, cannot be read, or is a FIFO or a device.

    """
    try:
        return open_regular(path)
    except UnusableFile as error:
        raise DataError(plain(f"{path.parent / str(error)}")) from error
    except FileNotFoundError as error:
        raise DataError(missing(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{plain(str(path))} cannot be read: {reason}") from error


def missing(path: Path) -> str:
    """Say that nothing is at a path, and which name in its folder is nearest to it."""
    try:
        names = [entry.name for entry in path.absolute().parent.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    return plain(f"there is no {path.absolute()}{hint}")


def read_text(path: Path) -> str:
    """Return a whole file of UTF-8, without the byte order mark that some editors write first.

    Raises:
        DataError: it cannot be read, is too large, or is not UTF-8.

    """
    with open_data(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise DataError(f"{plain(str(path))} has more than {MAX_TEXT_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{plain(str(path))}: expected text in UTF-8, got {error.reason} at byte "
            f"{error.start}: save it as UTF-8"
        ) from error


def read_toml(kind: str, path: Path) -> dict[str, Any]:
    """Return the values of a TOML file.

    Args:
        kind: what the file is, for the error.
        path: the file.

    Raises:
        UsageError: it cannot be read, or is not TOML.

    """
    try:
        return tomllib.loads(read_text(path))
    except DataError as error:
        raise UsageError(str(error)) from error
    except RecursionError as error:
        raise UsageError(f"{kind} {plain(str(path))}: its values are nested too deep") from error
    except ValueError as error:  # a number of thousands of digits is one, too
        raise UsageError(f"{kind} {plain(str(path))}: {error}") from error
