"""Files of certificates, tokens and keys, which are checked, and reloaded when they change."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from mlpserve_model.store.atomic_files import UnusableFile

__all__ = ["ReloadingFiles"]

log = logging.getLogger(__name__)


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
        read: reads the value from the files, or raises UnusableFile. The constructor passes
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
        except UnusableFile as error:
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


def _stat(path: Path) -> tuple[int, ...] | None:
    """Return values that differ when the file has changed, None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
