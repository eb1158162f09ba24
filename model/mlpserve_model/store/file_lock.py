"""A lock between the processes of one machine, or of those that share a file system."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlpserve_model.format.errors import StoreBusy
from mlpserve_model.store.atomic_files import Directory

__all__ = ["locked"]

_POLL_SECONDS = 0.02


@contextmanager
def locked(folder: Directory, name: str, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock on a file, which the kernel frees however this process ends.

    Args:
        folder: Where the file is; it is made if it is missing.
        name: The file's name.
        timeout: How long to wait for another process, in seconds.

    Raises:
        StoreBusy: Another process holds the lock for longer.
        UnusableFile: It is not a regular file.

    """
    deadline = time.monotonic() + timeout
    while (descriptor := _try_lock(folder, name)) is None:
        if time.monotonic() > deadline:
            path = folder.path / name
            raise StoreBusy(f"{path} is held by another process for more than {timeout:g} s")
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(folder: Directory, name: str) -> int | None:
    """Return a descriptor that holds the lock until it is closed, or None if taken."""
    descriptor = folder.descriptor(name, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor
