"""What is read once a second from the manager, the transport and the process, for the metrics."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np

from mlpserve_model import Manifest
from mlpserve_model.process.follower import Follower
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.observability.observer import Observer
from mlpserve_server.transport.standard import StandardTransport

__all__ = ["register_followers", "register_gauges"]

_PROCESS = Path("/proc/self")  # Linux has it; elsewhere these gauges are left out
_Values = dict[tuple[str, ...], float]


def register_gauges(
    observer: Observer,
    models: Models,
    transport: StandardTransport,
    ready: Callable[[], bool],
) -> None:
    """Have the observer read the gauges of a server."""
    build = _build(transport)
    started = time.time()
    readings: dict[str, Callable[[], _Values]] = {
        "mlpserve_calls_waiting": lambda: {(): transport.waiting},
        "mlpserve_workers": lambda: {(): 1},
        "mlpserve_workers_ready": lambda: {(): ready()},
        "mlpserve_store_read_timestamp_seconds": lambda: {(): _last_read(models)},
        "mlpserve_model_info": lambda: _served(models),
        "mlpserve_model_created_timestamp_seconds": lambda: _created(models),
        "mlpserve_model_accuracy": lambda: _accuracy(models),
        "mlpserve_models": lambda: _counted(models),
        "mlpserve_build_info": lambda: {build: 1},
        "mlpserve_start_timestamp_seconds": lambda: {(): started},
        "mlpserve_cpu_seconds_total": _CpuSeconds(),
    }
    if _PROCESS.exists():
        readings["mlpserve_resident_memory_bytes"] = _resident
        readings["mlpserve_open_files"] = lambda: {(): len([*(_PROCESS / "fd").iterdir()])}
    for metric, read in readings.items():
        observer.gauge(metric, read)


def register_followers(observer: Observer, followers: Sequence[Follower]) -> None:
    """Have the observer read which of the followers are alive."""
    observer.gauge("mlpserve_follower_alive", lambda: {(f.name,): f.alive for f in followers})


def _last_read(models: Models) -> float:
    """Return when the store was last readable for the model where that is longest ago."""
    return min((manager.last_read for manager in models.managers.values()), default=0.0)


def _served(models: Models) -> _Values:
    return {(m.model, str(m.version), m.digest): 1 for m in _manifests(models)}


def _created(models: Models) -> _Values:
    return {(m.model, str(m.version)): m.created.timestamp() for m in _manifests(models)}


def _counted(models: Models) -> _Values:
    managers = models.managers.values()
    answering = sum(manager.current is not None for manager in managers)
    return {("answering",): answering, ("waiting",): len(managers) - answering}


def _manifests(models: Models) -> Iterator[Manifest]:
    """Give the manifests of the versions that answer, of the models with gauges of their own."""
    for manager in models.labelled():
        if model := manager.current:
            yield model.manifest


def _accuracy(models: Models) -> _Values:
    manifests = [m for m in _manifests(models) if "accuracy" in m.metrics]
    return {(m.model, str(m.version)): m.metrics["accuracy"] for m in manifests}


def _build(transport: StandardTransport) -> tuple[str, ...]:
    ours, python = version("mlpserve"), platform.python_version()
    return ours, python, grpc.__version__, np.__version__, transport.name


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
