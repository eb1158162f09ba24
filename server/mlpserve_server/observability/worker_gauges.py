"""The gauges of this process: its age, CPU time, memory, waiting calls and followers."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mlpserve_model.process.follower import Follower
from mlpserve_model.process.versions import version_of
from mlpserve_server.observability.observer import Observer

__all__ = ["register_follower_gauges", "register_worker_gauges"]

_PROCESS = Path("/proc/self")  # Linux has it; elsewhere these gauges are left out
_Values = dict[tuple[str, ...], float]


def register_worker_gauges(
    observer: Observer,
    transport: str,
    waiting: Callable[[], int],
    ready: Callable[[], bool],
) -> None:
    """Have the observer read the gauges of this process.

    Args:
        observer: What reads them.
        transport: The transport's name.
        waiting: Returns the number of calls that wait.
        ready: Returns True if predictions can be answered.
    """
    started = time.time()
    readings: dict[str, Callable[[], _Values]] = {
        "mlpserve_calls_waiting": lambda: {(): waiting()},
        "mlpserve_workers": lambda: {(): 1},
        "mlpserve_workers_ready": lambda: {(): ready()},
        "mlpserve_build_info": lambda: {_build(transport): 1},
        "mlpserve_start_timestamp_seconds": lambda: {(): started},
        "mlpserve_cpu_seconds_total": _CpuSeconds(),
    }
    if _PROCESS.exists():
        readings["mlpserve_resident_memory_bytes"] = _resident
        readings["mlpserve_open_files"] = lambda: {(): len([*(_PROCESS / "fd").iterdir()])}
    for metric, read in readings.items():
        observer.gauge(metric, read)


def register_follower_gauges(observer: Observer, followers: Sequence[Follower]) -> None:
    """Have the observer read which of the followers are alive."""
    observer.gauge("mlpserve_follower_alive", lambda: {(f.name,): f.alive for f in followers})


def _build(transport: str) -> tuple[str, ...]:
    python = platform.python_version()
    return version_of("mlpserve"), python, version_of("grpcio"), np.__version__, transport


def _resident() -> _Values:
    pages = int((_PROCESS / "statm").read_text().split()[1])
    return {(): pages * os.sysconf("SC_PAGE_SIZE")}


class _CpuSeconds:
    """The CPU time of this process since the last reading."""

    def __init__(self) -> None:
        self._before = 0.0

    def __call__(self) -> _Values:
        now = time.process_time()
        since, self._before = now - self._before, now
        return {(): since}
