"""Files of certificates and tokens, which are checked, and reloaded when they change."""

import logging
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from mlpserve_model.store.atomic_files import UnusableFile, open_regular

__all__ = ["CredentialsError", "ReloadingFiles", "read_private", "read_public"]

# Far more than any list of tokens or chain of certificates needs.
_MAX_BYTES = 1 << 20

log = logging.getLogger(__name__)


class CredentialsError(Exception):
    """A file cannot be used. The message has the path and the reason, and none of the content."""


class _Described(Protocol):
    @property
    def summary(self) -> Mapping[str, object]:
        """The fields that the log may show."""
        ...


Value = TypeVar("Value", bound=_Described)


class ReloadingFiles(Generic[Value]):
    """The value that was last read from some files without an error, as `value`.

    Args:
        what: what the files contain, for the log.
        files: the files whose changes are detected.
        read: reads the value from the files, or raises CredentialsError. The constructor passes
            that on. A later failure keeps the value and is logged once for each change.

    """

    def __init__(self, what: str, files: Sequence[Path], read: Callable[[], Value]) -> None:
        self.what = what
        self._files = files
        self._read = read
        self._last_stat = self._accepted = self._stat()
        self.value = read()
        self._announce()

    def reload(self) -> None:
        """Read the files again if they have changed, and have not changed since the last call.

        Files that still change may be incomplete: a new certificate with the old key, a token
        whose end is missing.
        """
        before, self._last_stat = self._last_stat, self._stat()
        if self._last_stat == self._accepted or self._last_stat != before:
            return
        try:
            value = self._read()
        except CredentialsError as error:
            if self._stat() == before:  # if not, they have changed while they were read
                self._accepted = before
                fields = {"what": self.what, "reason": str(error)}
                log.error("new credentials refused, the old ones stay", extra=fields)
            return
        if self._stat() == before:
            self._accepted = before
            self.value = value
            self._announce()

    def _announce(self) -> None:
        fields = {"what": self.what, **self.value.summary}
        log.info("credentials in force", extra=fields)

    def _stat(self) -> list[tuple[int, ...] | None]:
        return [_stat(file) for file in self._files]


def read_private(path: Path) -> bytes:
    """Read a file that not every user of the machine may read.

    Raises:
        CredentialsError: it cannot be read, or every user may read or write it.

    """
    content, mode = _read(path)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise CredentialsError(
            f"{path} is open to every user of this machine: chmod 600 (or 640) it; "
            "for a mounted secret set its mode (defaultMode: 0440)"
        )
    return content


def read_public(path: Path) -> bytes:
    """Read a file of a bounded size.

    Raises:
        CredentialsError: it cannot be read.

    """
    return _read(path)[0]


def _read(path: Path) -> tuple[bytes, int]:
    """Return the content and the mode, both through one descriptor."""
    try:
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_BYTES + 1)
    except UnusableFile as error:
        raise CredentialsError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise CredentialsError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise CredentialsError(f"{path} has more than {_MAX_BYTES} bytes")
    return content, mode


def _stat(path: Path) -> tuple[int, ...] | None:
    """Return values that differ when the file has changed, None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
