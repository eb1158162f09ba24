"""The few verbs that a place for versions must know; what they are used for is the Store's."""

import re
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mlpserve_model.format.manifest import FileInfo

__all__ = ["VERSION", "Backend", "Conflict", "next_number"]

VERSION = re.compile(r"[1-9][0-9]{0,17}")


class Conflict(Exception):
    """What was to be replaced is not what it was."""


def next_number(*taken: int) -> int:
    """Return the number after the highest of these; raises OSError when there is none left."""
    number = 1 + max(taken, default=0)
    if not VERSION.fullmatch(str(number)):
        raise OSError(f"no number is left for a version after {number - 1}")
    return number


class Backend(Protocol):
    """Where the files of one model are: "7/model.npz", "aliases.json".

    `str` of it is its address, for messages. All that writes is called with the lock held.
    Every verb raises OSError when the place cannot be read or written, and FileNotFoundError
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

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes; raises CorruptVersion above `limit` bytes, before reading them."""
        ...

    def stat(self, name: str) -> FileInfo:
        """The digest and size of a file of any size, in little memory."""
        ...

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Keep every other writer out; raises StoreBusy after `timeout` seconds."""
        ...

    def collect_garbage(self, thorough: bool) -> None:
        """Remove what writers that died left; not `thorough`: what the last ones left."""
        ...

    def claim(self, above: int) -> int:
        """Claim the number of a new version, above this one and all that were ever claimed."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make a file, durable when this returns; no reader sees less than the whole."""
        ...

    def replace(self, name: str, data: bytes, before: bytes | None) -> None:
        """Put a file in the place of one, as `write` does it.

        Raises Conflict when its content is not `before` (None: when it is there).
        """
        ...

    def append(self, name: str, lines: bytes) -> None:
        """Add whole lines to a file, durable when this returns."""
        ...

    def abort(self, version: int) -> None:
        """Leave nothing visible of a version whose publication failed."""
        ...

    def remove(self, versions: Sequence[int]) -> None:
        """Remove versions; each stops to exist at one instant."""
        ...
