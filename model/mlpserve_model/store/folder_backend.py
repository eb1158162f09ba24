"""One model's versions in a folder of a shared volume.

Readers need no lock and no write access. Writers take turns by one lock file, which the kernel
frees when its holder dies. The root may be a symbolic link; no link below it is followed.
"""

import hashlib
import os
import re
import stat
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager, suppress
from os import DirEntry
from pathlib import Path

from mlpserve_model.format.errors import CorruptVersion
from mlpserve_model.format.manifest import MANIFEST_FILE, MAX_BYTES, FileInfo
from mlpserve_model.store.atomic_files import Directory, UnusableFile, make_folder
from mlpserve_model.store.backend import VERSION, Conflict, next_number
from mlpserve_model.store.file_lock import locked

__all__ = ["FolderBackend"]

_TEMPORARY = re.compile(r"\..*\.tmp", re.DOTALL)
# A killed writer had the highest number then: only a few versions came after it.
_RECENT = 100
# Folders that are removed at a time where there are more: Linux may keep a thread waiting for
# milliseconds for each. 2,000 versions took 8.9 s one by one, 0.9 s so.
_REMOVALS = 8
_REMOVED = re.compile(r"\.[0-9]+\.removed")


class FolderBackend:
    """The Backend on a file system; the folder need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """As Backend says."""
        try:
            with self._open():
                return True
        except FileNotFoundError:
            return False

    def newest(self, below: float) -> Iterator[tuple[int, Hashable]]:
        """As Backend says; none where there is no folder."""
        try:
            with self._open() as folder:
                for version in _numbers(folder.entries()):
                    if version < below and (stamp := _stamp(folder, version)) is not None:
                        yield version, stamp
        except FileNotFoundError:
            return

    def stamp(self, version: int) -> Hashable:
        """As Backend says."""
        try:
            with self._open() as folder:
                found = folder.stat(str(version))
                is_folder = found is not None and stat.S_ISDIR(found.st_mode)
                return _stamp(folder, version) if is_folder else None
        except FileNotFoundError:
            return None

    def contents_stamp(self, version: int) -> Hashable:
        """As Backend says."""
        with self._open() as folder, folder.folder(str(version)) as files:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in files.entries()]
        return frozenset((name, *_stamp_of(state)) for name, state in found)

    def file_stamp(self, name: str) -> Hashable:
        """As Backend says. The file is opened, since a network file system may cache its state."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self, name: str, limit: int, last: int | None = None) -> bytes:
        """As Backend says; CorruptVersion also unless it is a regular file."""
        with self._folder_of(name) as (folder, file), _judging():
            return folder.read(file, limit, last)

    def stat(self, name: str) -> FileInfo:
        """As Backend says; CorruptVersion unless it is a regular file."""
        with self._folder_of(name) as (folder, file), _judging(), folder.open(file) as opened:
            return FileInfo(hashlib.file_digest(opened, "sha256").hexdigest(), opened.tell())

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """As Backend says, making the folder."""
        with self._made() as folder, _refusing(), locked(folder, ".lock", timeout):
            yield

    def collect_garbage(self) -> None:
        """Remove versions without a manifest, and temporary files.

        The caller holds the lock, so that nobody writes them at this moment.
        """
        with self._open() as folder:
            _collect(folder, folder.entries(), recent=None)

    def claim(self, above: int) -> int:
        """Make the folder of the next version; mkdir fails for every other writer."""
        with self._open() as folder:
            # Listed once: all that grows with the number of versions when one is published.
            taken = _collect(folder, folder.entries(), recent=_RECENT)
            version = next_number(taken, above)
            folder.make(str(version))
        return version

    def keep(self, version: int | None, contents: Mapping[str, bytes]) -> None:
        """Write the files of a copy, in this order; a version replaces the one of its number."""
        with self._made() as folder:
            if version is not None:
                if folder.stat(str(version)) is not None:
                    self.remove([version])
                folder.make(str(version))
            for name, data in contents.items():
                self.write(name, data)

    def write(self, name: str, data: bytes) -> None:
        """As Backend says."""
        with self._folder_of(name) as (folder, file):
            folder.write(file, data)

    def replace(self, name: str, data: bytes, before: bytes | None) -> None:
        """As Backend says; nobody else writes while we hold the lock."""
        with self._folder_of(name) as (folder, file):
            now = None
            with suppress(FileNotFoundError), _refusing():
                now = folder.read(file, MAX_BYTES)
            if now != before:
                raise Conflict(name)
            folder.write(file, data)

    def append(self, name: str, lines: bytes) -> None:
        """As Backend says."""
        with self._folder_of(name) as (folder, file), _refusing():
            folder.append(file, lines)

    def abort(self, version: int) -> None:
        """As Backend says: nothing is left."""
        self.remove([version])

    def remove(self, versions: Sequence[int]) -> None:
        """As Backend says: each folder is renamed in one step, then removed."""
        with self._open() as folder:
            renamed = {str(version): f".{version}.removed" for version in versions}
            for name, removed in renamed.items():
                if folder.stat(removed) is not None:  # left by a process that was killed
                    folder.remove_tree(removed)
                folder.rename(name, folder, removed)
            folder.sync()
            _remove_trees(folder, [*renamed.values()])

    @contextmanager
    def _open(self, make: bool = False) -> Iterator[Directory]:
        """Give the model's folder; the root may be a link, the folder itself may not."""
        with Directory(self.path.parent) as root, root.folder(self.path.name, make) as folder:
            yield folder

    def _made(self) -> AbstractContextManager[Directory]:
        make_folder(self.path.parent)
        return self._open(make=True)

    @contextmanager
    def _folder_of(self, name: str) -> Iterator[tuple[Directory, str]]:
        """Give the folder and the last part of a name such as "7/model.npz" or "aliases.json"."""
        version, _, file = name.rpartition("/")
        with self._open() as folder:
            if not version:
                yield folder, file
                return
            with folder.folder(version) as files:
                yield files, file


def _remove_trees(folder: Directory, names: Sequence[str]) -> None:
    if len(names) <= _REMOVALS:
        for name in names:
            folder.remove_tree(name)
        return
    with futures.ThreadPoolExecutor(_REMOVALS) as pool:
        list(pool.map(folder.remove_tree, names))


def _collect(folder: Directory, entries: Sequence[DirEntry[str]], recent: int | None) -> int:
    """Remove what killed writers left; return the highest number that is taken then, or 0.

    Args:
        folder: The model's folder.
        entries: What is in it.
        recent: How many of the highest numbers to examine, None for all.

    """
    for entry in [entry for entry in entries if entry.name.startswith(".")]:
        if entry.is_dir(follow_symlinks=False):
            if _REMOVED.fullmatch(entry.name):
                folder.remove_tree(entry.name)
        elif _TEMPORARY.fullmatch(entry.name):
            folder.remove(entry.name)
    names = [entry.name for entry in entries]
    numbers = sorted(map(int, filter(VERSION.fullmatch, names)), reverse=True)
    unfinished = {number for number in numbers[:recent] if _is_unfinished(folder, number)}
    for number in unfinished:
        folder.remove_tree(str(number))
    return next((number for number in numbers if number not in unfinished), 0)


def _is_unfinished(folder: Directory, version: int) -> bool:
    if _stamp(folder, version) is not None:
        return False
    found = folder.stat(str(version))
    return found is not None and stat.S_ISDIR(found.st_mode)


def _numbers(entries: Sequence[DirEntry[str]]) -> list[int]:
    """Return the numbers of the folders named like a version, the highest first."""
    numbers = [
        int(entry.name)
        for entry in entries
        if VERSION.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
    ]
    return sorted(numbers, reverse=True)


def _stamp(folder: Directory, version: int) -> Hashable:
    """Return what changes with the manifest, None only when it is certain that there is none."""
    try:
        found = folder.stat(f"{version}/{MANIFEST_FILE}")
    except NotADirectoryError:
        return None
    return found and _stamp_of(found)


def _stamp_of(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _judging() -> Iterator[None]:
    """Turn UnusableFile into CorruptVersion: the file is the version's."""
    try:
        yield
    except UnusableFile as error:
        raise CorruptVersion(str(error)) from error


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn UnusableFile into OSError: a writer must not touch the file."""
    try:
        yield
    except UnusableFile as error:
        raise OSError(str(error)) from error
