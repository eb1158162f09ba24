"""How much memory this process may use, which is less than the machine has in a container."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from mlpserve_model.process.cgroups import groups, read

__all__ = ["usable_memory"]


def usable_memory() -> int:
    """Return the bytes that the machine, the cgroups' limits and `ulimit -v` all allow."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(
        [machine, *_address_space(), *(_limit(group) or machine for group in groups("memory"))]
    )


def _address_space() -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit


def _limit(group: Path) -> int:
    """Return the bytes that a cgroup allows, 0 without a limit."""
    # Version 1 has the other file, and a number beyond any machine for no limit.
    text = read(group / "memory.max") or read(group / "memory.limit_in_bytes")
    return int(text) if text.strip().isdecimal() else 0
