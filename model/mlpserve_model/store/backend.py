"""The few verbs that a place for versions must know; what they are used for is the Store's."""

import re
from contextlib import AbstractContextManager
from typing import Protocol

from mlpserve_model.format.manifest import FileInfo

__all__ = ["VERSION", "Backend", "Conflict"]

VERSION = re.compile(r"[1-9][0-9]{0,17}")


class Conflict(Exception):
    """What was to be replaced is not what it was."""


class Backend(Protocol):
    """Where the files of one model are: "7/model.npz", "aliases.json".

    `str` of it is its address, for messages. All that writes is called with the lock held.
    Every verb raises OSError when the place cannot be read or written, and FileNotFoundError
    for a file that is not there.
    """

    def versions(self) -> list[int]:
        """The numbers of all versions that have a manifest, oldest first."""
        ...

    def holds(self, version: int) -> bool:
        """Whether this version has a manifest."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes; raises ModelRejected above `limit` bytes, before reading them."""
        ...

    def measure(self, name: str) -> FileInfo:
        """The digest and size of a file of any size, in little memory."""
        ...

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Keep every other writer out; raises StoreBusy after `timeout` seconds."""
        ...

    def sweep(self) -> None:
        """Remove what writers that died left."""
        ...

    def claim(self) -> int:
        """A version's number above all that were taken, which nobody else gets."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make a file, durable when this returns; no reader sees less than the whole."""
        ...

    def replace(self, name: str, data: bytes, before: bytes | None) -> None:
        """Put a file in the place of one, as `write` does it.

        Raises Conflict when its content is not `before` (None: when it is there).
        """
        ...

    def append(self, name: str, line: bytes) -> None:
        """Add a line to a file, durable when this returns."""
        ...

    def discard(self, version: int) -> None:
        """Leave nothing of a version whose publication failed that anybody would see."""
        ...

    def remove(self, version: int) -> None:
        """Remove a version, its manifest first: it stops to exist at one instant."""
        ...
