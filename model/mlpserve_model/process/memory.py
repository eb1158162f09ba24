"""How much memory this process may use, which is less than the machine has in a container."""

import os
import resource
from pathlib import Path

__all__ = ["limit_of", "usable_memory"]

_CGROUPS = Path("/sys/fs/cgroup")  # in a container this is its own group


def usable_memory() -> int:
    """Return the bytes that the machine, the container and `ulimit -v` all allow."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [machine, *map(_limit_in, ("memory.max", "memory/memory.limit_in_bytes"))]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limit for limit in limits if limit)


def limit_of(text: str) -> int | None:
    """Return the limit in bytes that a cgroup's file holds; None for "max" and anything else."""
    return int(text) if text.strip().isdecimal() else None


def _limit_in(name: str) -> int | None:
    try:
        return limit_of((_CGROUPS / name).read_text())
    except OSError:
        return None
