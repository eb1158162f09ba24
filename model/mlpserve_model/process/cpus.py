"""How many cores this process may use, which in a container is fewer than the machine has."""

import math
import os
from pathlib import Path

from mlpserve_model.process.cgroups import groups, read

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Return the number of cores that CPU affinity and cgroup quotas allow, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = (_quota(group) for group in groups("cpu"))
    return max(1, math.floor(min([cores or 1, *quotas])))


def _quota(group: Path) -> float:
    """Return the cores that a cgroup's quota allows, infinity without one."""
    text = read(group / "cpu.max")  # "max 100000" or "150000 100000"
    if not text:  # version 1 has two files, and -1 for no limit
        text = " ".join(read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        allowed, period = map(int, text.split())
        return allowed / period if allowed > 0 else math.inf
    except (ValueError, ZeroDivisionError):
        return math.inf
