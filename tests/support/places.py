"""The bytes of a store, reached past its own code: for damage, and for putting things right."""

from pathlib import Path
from typing import Protocol

from obstore.store import S3Store

__all__ = ["BucketPlace", "FolderPlace", "Place"]


class Place(Protocol):
    """Where the files of one model are; names are such as "7/model.npz"."""

    def read(self, name: str) -> bytes:
        """Return a file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file; on a volume in place, so that a reader may find half of it."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...


class FolderPlace:
    """Files on a volume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        """As Place says."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """As Place says."""
        (self.folder / name).write_bytes(data)

    def remove(self, name: str) -> None:
        """As Place says."""
        (self.folder / name).unlink()


class BucketPlace:
    """Objects of a store with an S3 interface.

    Args:
        endpoint: where the store is, past every network that fails.
        bucket: name of the bucket.
        prefix: what names are below.

    """

    def __init__(self, endpoint: str, bucket: str, prefix: str) -> None:
        self._store = S3Store(bucket, prefix=prefix, endpoint=endpoint)

    def read(self, name: str) -> bytes:
        """As Place says."""
        return bytes(self._store.get(name).bytes())

    def write(self, name: str, data: bytes) -> None:
        """As Place says, except that no reader finds half of it."""
        self._store.put(name, data)

    def remove(self, name: str) -> None:
        """As Place says."""
        self._store.delete(name)
