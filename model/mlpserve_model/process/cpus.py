"""How many cores this process may use, which in a container is fewer than the machine has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores"]

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that CPU affinity and cgroup quotas allow, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = (_quota(group) for group in _groups(_read(OWN_GROUPS)))
    return max(1, math.floor(min([cores or 1, *quotas])))


def _groups(text: str) -> Iterator[Path]:
    """Yield the folders of the CPU cgroups that limit this process.

    Args:
        text: Contents of /proc/self/cgroup. A line of version 2 is "0::/path", one of version 1
            is "3:cpu,cpuacct:/path". In a container the path may be the host's, and only the
            root exists.
    """
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        names = path.strip("/").split("/")
        # A limit of an outer group holds for the inner ones.
        yield from (root.joinpath(*names[:depth]) for depth in range(len(names) + 1))


def _quota(group: Path) -> float:
    """Return the cores that a cgroup's quota allows, infinity without one."""
    text = _read(group / "cpu.max")  # "max 100000" or "150000 100000"
    if not text:  # version 1 has two files, and -1 for no limit
        text = " ".join(_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        allowed, period = map(int, text.split())
        return allowed / period if allowed > 0 else math.inf
    except (ValueError, ZeroDivisionError):
        return math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
