"""Files that survive a crash, in folders where others may write too.

A file gets its name when it is complete and on disk. The entries of a folder are opened relative to
its descriptor; an entry that is a symbolic link, a FIFO or a device is refused.
"""

import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["Directory", "UnusableFile", "make_folder", "open_regular", "write_atomic"]

# O_NONBLOCK: opening a FIFO would wait for its other end. O_NOCTTY: a terminal is not taken over.
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnusableFile(Exception):
    """A file cannot be used; the message has the reason, and nothing of the content."""


class Directory:
    """An open folder whose entries are used without following a symbolic link.

    Links in `path` itself are followed: it was named by the operator. Those in a folder `within`
    another one are not, and raise NotADirectoryError. Use it as a context manager. Every method
    raises OSError when the volume fails, and FileNotFoundError only when the entry is not there.
    """

    def __init__(self, path: Path, within: "Directory | None" = None) -> None:
        self.path = path
        if within is None:
            self._descriptor = os.open(path, _FOLDER)
        else:
            flags = _FOLDER | os.O_NOFOLLOW
            try:
                self._descriptor = os.open(path.name, flags, dir_fd=within._descriptor)
            except NotADirectoryError as error:
                found = within.stat(path.name)
                if found is not None and stat.S_ISLNK(found.st_mode):
                    error.strerror = "Not a directory but a symbolic link, which is not followed"
                raise

    def __enter__(self) -> "Directory":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def folder(self, name: str, make: bool = False) -> "Directory":
        """Open a folder in this one; with `make`, a missing one is made, with a durable name."""
        try:
            return Directory(self.path / name, within=self)
        except FileNotFoundError:
            if not make:
                raise
        with suppress(FileExistsError):
            self.make(name)
        return Directory(self.path / name, within=self)

    def make(self, name: str) -> None:
        """Make a folder with a durable name; raises FileExistsError when the name is taken."""
        os.mkdir(name, dir_fd=self._descriptor)
        self.sync()

    def entries(self) -> list[os.DirEntry[str]]:
        """List what is in the folder, in no order."""
        with os.scandir(self._descriptor) as entries:
            return list(entries)

    def stat(self, name: str) -> os.stat_result | None:
        """Return what `os.lstat` says of an entry, None only when it is not there.

        An entry of a folder in this one is "folder/name"; whether that is a link is not checked.
        """
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str) -> io.BufferedReader:
        """Open a regular file for reading; raises UnusableFile for anything else."""
        return os.fdopen(self.descriptor(name, os.O_RDONLY), "rb")

    def read(self, name: str, limit: int, last: int | None = None) -> bytes:
        """Return a file's bytes, or the `last` ones of them.

        Raises UnusableFile for a file above `limit` bytes, before reading them.
        """
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise UnusableFile(f"{name} has {size} bytes, expected at most {limit}")
            if last is not None and last < size:
                file.seek(size - last)
                size = last
            return file.read(size)  # not `limit`, which is allocated at once

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Give a file to fill, which replaces `name` once the block has ended without an error."""
        temporary = f".{name}.{os.getpid()}.tmp"
        self.remove(temporary)  # left by a killed process with the same number
        descriptor = self._create(temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self.rename(temporary, self, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        self.sync()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file by these bytes in one step, durable when this returns."""
        with self.writing(name) as file:
            file.write(data)

    def overwrite(self, name: str, data: bytes) -> None:
        """Replace a file as `write` does, while others may write it too: the last one's stays.

        Processes of several containers have the same numbers, and threads of one process have one.
        """
        with self._complete(name, data) as temporary:
            self.rename(temporary, self, name)
        self.sync()

    def create(self, name: str, data: bytes) -> bool:
        """Make a file, durable when this returns; False, and no change, where there is one.

        Writers may be at work at once, threads or processes: one of them makes it.
        """
        created = self.stat(name) is None and self._link_new(name, data)
        self.sync()  # also for the name that another writer has just made
        return created

    def _link_new(self, name: str, data: bytes) -> bool:
        folder = self._descriptor
        try:
            with self._complete(name, data) as file:
                os.link(file, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def _complete(self, name: str, data: bytes) -> Iterator[str]:
        """Give the name, of this writer alone, of a complete and durable file; remove it after."""
        temporary = f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            with os.fdopen(self._create(temporary), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            with suppress(OSError):
                self.remove(temporary)

    def append(self, name: str, lines: bytes) -> None:
        """Add whole lines to a file, durable when this returns; ends one torn by a crash first."""
        descriptor = self.descriptor(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(descriptor)
        if not end:
            self.sync()

    def rename(self, name: str, target: "Directory", new_name: str) -> None:
        """Move an entry, itself and not what it may point at, over any file of that name."""
        source, destination = self._descriptor, target._descriptor
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=destination)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a folder and what is in it; raises OSError for a symbolic link."""
        shutil.rmtree(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make the names in the folder durable."""
        os.fsync(self._descriptor)

    def descriptor(self, name: str, flags: int) -> int:
        """Open a regular file as `os.open` does; others are not even opened."""
        found = self.stat(name)
        if found is not None:
            _check_regular(name, found)
        try:
            descriptor = os.open(name, flags | _SAFE, 0o666, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it was replaced after the check
                raise UnusableFile(f"{name} is not a regular file but a symbolic link") from error
            raise
        return _checked(name, descriptor)

    def _create(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
        return os.open(name, flags, 0o666, dir_fd=self._descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that is complete and on disk before it gets its name."""
    with Directory(path.parent) as folder:
        folder.write(path.name, data)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, with durable names."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir()
    with Directory(path.parent) as parent:
        parent.sync()


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file that the user named, links followed; raises UnusableFile for other kinds."""
    _check_regular(path.name, path.stat())
    descriptor = os.open(path, os.O_RDONLY | (_SAFE & ~os.O_NOFOLLOW))
    return os.fdopen(_checked(path.name, descriptor), "rb")


def _checked(name: str, descriptor: int) -> int:
    """Return the descriptor; close it and raise UnusableFile unless it is a regular file's."""
    try:
        _check_regular(name, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(name: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise UnusableFile(f"{name} is not a regular file but {kind}")
