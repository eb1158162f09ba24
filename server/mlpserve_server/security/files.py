"""Files of certificates and tokens: read with care, and again when they change."""

import logging
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

__all__ = ["CredentialsError", "Watched", "read_private", "read_public"]

# No list of tokens and no chain of certificates comes near to it.
_MOST_BYTES = 1 << 20

log = logging.getLogger(__name__)


class CredentialsError(Exception):
    """A file cannot be used; the message says which and why, and nothing of what is in it."""


class _Described(Protocol):
    @property
    def summary(self) -> Mapping[str, object]:
        """What may be known of it, for the log."""
        ...


Value = TypeVar("Value", bound=_Described)


class Watched(Generic[Value]):
    """What `read` makes of some files; `value` is the latest of it that was in order.

    `read` raises CredentialsError: so does this, the first time. Later what was there before
    stays, and that is logged once.
    """

    def __init__(self, what: str, files: Sequence[Path], read: Callable[[], Value]) -> None:
        self._what = what
        self._files = files
        self._read = read
        self._seen = self._judged = self._stamps()
        self.value = read()
        self._announce()

    def look(self) -> None:
        """Take over what has changed, once it stays the same for two looks.

        Before that it may be half written: a new certificate whose key is still the old one, a
        token of which the end is missing.
        """
        before, self._seen = self._seen, self._stamps()
        if self._seen == self._judged or self._seen != before:
            return
        try:
            value = self._read()
        except CredentialsError as error:
            if self._stamps() == before:  # or else it has changed while it was read
                self._judged = before
                fields = {"what": self._what, "reason": str(error)}
                log.error("new credentials refused, the old ones stay", extra=fields)
            return
        if self._stamps() == before:
            self._judged = before
            self.value = value
            self._announce()

    def _announce(self) -> None:
        fields = {"what": self._what, **self.value.summary}
        log.info("credentials in force", extra=fields)

    def _stamps(self) -> list[tuple[int, ...] | None]:
        return [_stamp(file) for file in self._files]


def read_private(path: Path) -> bytes:
    """Read a file that not everybody on the machine may read; raises CredentialsError."""
    content = read_public(path)
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise CredentialsError(
            f"{path} is open to every user of this machine: chmod 600 (or 640) it; "
            "for a mounted secret set its mode (defaultMode: 0440)"
        )
    return content


def read_public(path: Path) -> bytes:
    """Read a file of a bounded size; raises CredentialsError."""
    try:
        if not path.is_file():
            path.stat()  # says so if it is not there
            raise CredentialsError(f"{path} is not a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise CredentialsError(f"{path} has more than {_MOST_BYTES} bytes")
    return content


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file, or None when there is none; a link counts as what it leads to."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
