"""How many cores this process may use, which is less than the machine has in a container."""

import math
import os
from pathlib import Path

__all__ = ["quota", "usable_cores"]

_CGROUPS = Path("/sys/fs/cgroup")  # in a container this is its own group


def usable_cores() -> int:
    """The cores that the affinity and the container's quota both allow, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.floor(min(cores or 1, quota(_cpu_max()))))


def quota(text: str) -> float:
    """The cores that `text` allows, in the form of cgroup v2's cpu.max: "<quota> <period>".

    Infinity without a limit: "max", the -1 of cgroup v1, or what is no quota at all.
    """
    try:
        allowed, period = map(int, text.split())
        return allowed / period if allowed > 0 else math.inf
    except (ValueError, ZeroDivisionError):
        return math.inf


def _cpu_max() -> str:
    """The container's quota and period; cgroup v1 has them in two files."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            return " ".join((_CGROUPS / name).read_text() for name in names)
        except OSError:
            continue
    return ""
