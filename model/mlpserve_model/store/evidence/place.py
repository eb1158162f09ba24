"""The files of a place for reports: a name is taken by the first writer, and there is no lock."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from mlpserve_model.store.atomic_files import Directory, UnusableFile, make_folder
from mlpserve_model.store.location import Bucket, Location, missing_client, parse_location

__all__ = ["Content", "Files", "check_name", "open_files"]


# The name of a file, and its bytes or why it cannot be used.
Content = tuple[str, bytes | UnusableFile]


class Files(Protocol):
    """Files with names such as "digits/reports/2026-01-31/ab12.json", in a folder or a bucket.

    `str` of it is its address, for messages. Every method raises OSError when the place cannot be
    read or written, or a name leads out of it, and FileNotFoundError for a file that is not there.
    """

    def create(self, name: str, data: bytes) -> bool:
        """Make a file, durable when this returns; False, and no change, where there is one."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Make a file, or replace the one of this name; readers see one or the other, whole."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes; raises UnusableFile above `limit` bytes, before reading them."""
        ...

    def contents(self, folder: str, names: Iterable[str], limit: int) -> Iterator[Content]:
        """Give each of these files of a folder with its bytes, or with why it cannot be used.

        Those that are gone are left out.
        """
        ...

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted; none where it is not there."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none where it is not there."""
        ...


def check_name(name: str) -> None:
    """Raise OSError for a name that does not lead to a place below the root."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise OSError(errno.EINVAL, f"{name!r} is not the name of a file in the place")


def open_files(location: Location | str) -> Files:
    """Return the files of a place; raises StoreError for an address that cannot be one."""
    place = parse_location(location)
    return FolderFiles(place) if isinstance(place, Path) else _bucket_files(place)


class FolderFiles:
    """Files on a file system with hard links; no symbolic link below the root is followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def create(self, name: str, data: bytes) -> bool:
        """As Files says."""
        folder, _, file = name.rpartition("/")
        with self._open(folder, make=True) as directory:
            return directory.create(file, data)

    def replace(self, name: str, data: bytes) -> None:
        """As Files says; of writers at the same time, the last one's file stays."""
        folder, _, file = name.rpartition("/")
        with self._open(folder, make=True) as directory:
            directory.overwrite(file, data)

    def read(self, name: str, limit: int) -> bytes:
        """As Files says."""
        folder, _, file = name.rpartition("/")
        with self._open(folder) as directory:
            return directory.read(file, limit)

    def contents(self, folder: str, names: Iterable[str], limit: int) -> Iterator[Content]:
        """As Files says; the folder is opened once, which halves the time of a small file."""
        with suppress(FileNotFoundError), self._open(folder) as directory:
            for name in names:
                try:
                    yield name, directory.read(name, limit)
                except UnusableFile as error:
                    yield name, error
                except FileNotFoundError:
                    continue

    def folders(self, folder: str = "") -> list[str]:
        """As Files says."""
        return [
            entry.name for entry in self._entries(folder) if entry.is_dir(follow_symlinks=False)
        ]

    def names(self, folder: str) -> list[str]:
        """As Files says."""
        return [
            entry.name for entry in self._entries(folder) if entry.is_file(follow_symlinks=False)
        ]

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what is not hidden, as the files of writers are that were killed."""
        try:
            with self._open(folder) as directory:
                found = [entry for entry in directory.entries() if entry.name[0] != "."]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda entry: entry.name)

    @contextmanager
    def _open(self, folder: str, make: bool = False) -> Iterator[Directory]:
        """Give a folder below the root."""
        if folder:
            check_name(folder)
        if make:
            make_folder(self._root)
        with ExitStack() as stack:
            directory = stack.enter_context(Directory(self._root))
            for part in folder.split("/") if folder else []:
                directory = stack.enter_context(directory.folder(part, make))
            yield directory


def _bucket_files(bucket: Bucket) -> Files:
    # Imported here: a place on a volume needs no client of object stores.
    try:
        from mlpserve_model.store.evidence.bucket_place import BucketFiles
        from mlpserve_model.store.object_client import open_objects
    except ModuleNotFoundError as error:
        raise missing_client(bucket, error) from error
    return BucketFiles(open_objects(bucket, "", os.environ))
