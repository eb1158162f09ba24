"""Files that survive a crash: whole under their final name, or not there at all."""

import fcntl
import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpserve_model.errors import ModelRejected, StoreBusy

__all__ = [
    "append_line",
    "fsync_folder",
    "lock_file",
    "make_folder",
    "open_regular",
    "read_bounded",
    "write_atomic",
]

_LOCK_POLL_SECONDS = 0.02


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that is complete and on disk before it gets its name.

    The name's own durability needs its folder synced too, which is done here as well.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Add one line and sync it, and the name of a new file; ends a line torn by a crash first."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end and _last_byte(file.fileno(), end) != b"\n":
            line = b"\n" + line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if not end:
        fsync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, with durable names."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes; raises ModelRejected above `limit` bytes, before reading them."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ModelRejected(f"{path.name} has {size} bytes, expected at most {limit}")
        return file.read(limit)


def open_regular(path: Path) -> io.BufferedReader:
    """Open for reading what is a plain file; raises ModelRejected for a folder or a pipe."""
    # A pipe would keep open() waiting for its writer, without O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelRejected(f"{path.name} is not a regular file")
    return open(descriptor, "rb")  # noqa: PTH123  # of a descriptor


@contextmanager
def lock_file(path: Path, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock that the kernel frees when this process ends, however it ends.

    Raises StoreBusy when another process holds it for longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise StoreBusy(f"{path} is held by another process for more than {timeout:g} s")
        time.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock on this file until it is closed, or None if taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _last_byte(descriptor: int, end: int) -> bytes:
    return os.pread(descriptor, 1, end - 1)
