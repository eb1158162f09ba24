"""The operations that Store needs of a place for versions."""

import re
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mlpserve_model.format.manifest import FileInfo

__all__ = ["VERSION", "Backend", "Conflict", "next_number"]

VERSION = re.compile(r"[1-9][0-9]{0,17}")


class Conflict(Exception):
    """The file to be replaced has changed meanwhile."""


def next_number(*taken: int) -> int:
    """Return the number after the highest of these; raises OSError when there is none left."""
    number = 1 + max(taken, default=0)
    if not VERSION.fullmatch(str(number)):
        raise OSError(f"no number is left for a version after {number - 1}")
    return number


class Backend(Protocol):
    """The files of one model, named like "7/model.npz" or "aliases.json".

    `str` of it is its address, for messages. Methods that write are called with the lock held.
    Every method raises OSError when the place cannot be read or written, and FileNotFoundError
    for a file that is not there.
    """

    def exists(self) -> bool:
        """Return True if there is a place for this model, even an empty one."""
        ...

    def newest(self, below: float) -> Iterator[tuple[int, Hashable]]:
        """Give each version below a number that has a manifest, with its stamp, newest first."""
        ...

    def stamp(self, version: int) -> Hashable:
        """Return what changes when the manifest is replaced, None only if there is none."""
        ...

    def contents_stamp(self, version: int) -> Hashable:
        """Return what changes when any file of a version is replaced."""
        ...

    def file_stamp(self, name: str) -> Hashable:
        """Return what changes when a file is replaced, None if only its content shows that."""
        ...

    def read(self, name: str, limit: int, last: int | None = None) -> bytes:
        """Return a file's bytes, or the `last` ones of them.

        Raises CorruptVersion if the file has more than `limit` bytes, before reading them.
        """
        ...

    def stat(self, name: str) -> FileInfo:
        """Return digest and size of a file, in little memory whatever its size."""
        ...

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Hold the writers' lock; raises StoreBusy after `timeout` seconds."""
        ...

    def collect_garbage(self) -> None:
        """Remove what killed writers left."""
        ...

    def claim(self, above: int) -> int:
        """Claim the number of a new version, above this one and all that are there.

        What the last killed writers left is removed before.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make a file, durable when this returns; readers see all of it or none."""
        ...

    def replace(self, name: str, data: bytes, before: bytes | None) -> None:
        """Replace a file, as `write` does.

        Raises Conflict unless its content is `before` (None: unless there is no such file).
        """
        ...

    def append(self, name: str, lines: bytes) -> None:
        """Add whole lines to a file, durable when this returns."""
        ...

    def abort(self, version: int) -> None:
        """Leave nothing visible of a version whose publication failed."""
        ...

    def remove(self, versions: Sequence[int]) -> None:
        """Remove versions, each in one step for its readers."""
        ...
