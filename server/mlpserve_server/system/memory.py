"""How much memory the process holds, and what it gives back."""

import ctypes
import ctypes.util
import os
import time
from functools import cache
from typing import Any

__all__ = [
    "MemoryWatch",
    "keep_freed_memory",
    "kept_by_arenas",
    "release_freed_memory",
    "resident_bytes",
]

# Numbers of mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_MEBIBYTE = 2**20
# What threads allocate lies in arenas, and what is freed at the end of one stays there, up to 64
# MiB of each but the first: 110 MiB after a few requests of 60 MiB, 1 MiB with one arena. But with
# one, threads wait for each other at every allocation: 64 calls in flight then take a quarter more
# CPU time. So there are as many as the memory allows, up to one for each thread that is ever busy.
_MAX_ARENAS, _ARENA_KEEPS = 12, 64 * _MEBIBYTE
# Memory that an idle process may keep for the next batch.
_KEPT = 32 * _MEBIBYTE
# All threads that allocate wait while the heap is trimmed. Trimming it at every poll, ten
# milliseconds apart, kept 200 calls of 60 MiB from being refused: 2.7 GiB instead of 0.3.
_TRIM_SECONDS = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


def kept_by_arenas(max_bytes: int) -> int:
    """Return the bytes that the allocator may keep for good, where requests may take `max_bytes`.

    A quarter at most, in steps of an arena.
    """
    return min(max_bytes // 4 // _ARENA_KEEPS, _MAX_ARENAS - 1) * _ARENA_KEEPS


def keep_freed_memory(max_bytes: int) -> None:
    """Let the allocator keep what a batch has freed for the next one; does nothing off glibc.

    To be called before the first thread starts: a thread that allocates earlier gets an arena of
    its own for good, whose end is never returned to the system (50 MiB after requests of 24 MiB).

    Otherwise the system maps each batch's buffers again, page by page. Measured with 1,000 images,
    a batch then takes 6.8 ms of CPU time instead of 4.2.

    Args:
        max_bytes: What requests may take in memory.

    """
    libc = _libc()
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 32 * _MEBIBYTE)
        libc.mallopt(_TRIM_THRESHOLD, 128 * _MEBIBYTE)
        libc.mallopt(_TOP_PAD, 16 * _MEBIBYTE)
        libc.mallopt(_ARENA_MAX, 1 + kept_by_arenas(max_bytes) // _ARENA_KEEPS)


def release_freed_memory() -> None:
    """Return freed memory to the system; does nothing off glibc."""
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def resident_bytes() -> int:
    """Return the memory that the process has in use, 0 where the system does not say."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)  # at a third of what a file object takes
    except OSError:
        return 0
    try:
        return int(os.read(file, 128).split()[1]) * _PAGE
    finally:
        os.close(file)


class MemoryWatch:
    """Compares the memory of the process with what it had when it was idle."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._idle = resident_bytes()  # until it is known: calls may come before the first pause
        self._settled = False
        self._trimmed = 0.0

    def exceeded(self, counted: int) -> bool:
        """Return True if the process has grown by more than the maximum since it was idle.

        Args:
            counted: Bytes in use that are accounted for elsewhere, and may be.

        """
        if not self._is_above(self._maximum + counted):
            return False
        now = time.monotonic()
        if now - self._trimmed < _TRIM_SECONDS:
            return True
        self._trimmed = now
        release_freed_memory()  # what is freed but kept is not in use
        return self._is_above(self._maximum + counted)

    def settle(self) -> None:
        """Return what was freed, and remember what an idle process has once no more goes back."""
        if self._settled and not self._is_above(_KEPT):
            return
        now, before = time.monotonic(), resident_bytes()
        if now - self._trimmed >= _TRIM_SECONDS:
            self._trimmed = now
            release_freed_memory()
            if not self._settled or before - resident_bytes() < _MEBIBYTE:
                self._settled = True
                self._idle = resident_bytes()

    def _is_above(self, growth: int) -> bool:
        return resident_bytes() - self._idle > growth


@cache
def _libc() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("c"))
