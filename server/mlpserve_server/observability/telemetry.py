"""What a server tells about itself: to whom, and the gauges that are read now and then."""

import os
import platform
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from mlpserve_model.process.follower import Follower
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.observability.access_log import AccessLog
from mlpserve_server.observability.grpc_log import grpc_log_counted
from mlpserve_server.observability.metrics import Report
from mlpserve_server.observability.observer import Observer
from mlpserve_server.observability.pipe import reporter
from mlpserve_server.observability.recorder import Journal, Listener
from mlpserve_server.settings import Settings
from mlpserve_server.transport.standard import StandardTransport

if TYPE_CHECKING:
    from mlpserve_server.observability.endpoint import Endpoint

__all__ = ["Telemetry", "TelemetryError"]

_PROCESS = Path("/proc/self")  # Linux has it; elsewhere what is read there is not told
_Values = dict[tuple[str, ...], float]


class TelemetryError(Exception):
    """What was asked for needs something that is not installed."""


class Telemetry:
    """The observer that the settings ask for, who is to hear of everything; and its metrics.

    Raises TelemetryError when traces are asked for and their library is not there, and from
    `start` PortTaken when the address of the metrics is.
    """

    def __init__(self, settings: Settings, on_end: Callable[[], None]) -> None:
        self._settings = settings
        self._endpoint: Endpoint | None = None
        self._stack = ExitStack()
        self._send: Callable[[Report], None] = _nowhere
        counts = bool(settings.metrics_listen or settings.metrics_line)
        listeners = _listeners(settings)
        report = (lambda report: self._send(report)) if counts else None
        self._journal = Journal(report, listeners, on_end) if counts or listeners else None
        self.observer = self._journal or Observer()

    @property
    def metrics_address(self) -> str:
        """Where the metrics are, with the port that it got; empty if elsewhere or nowhere."""
        return self._endpoint.address if self._endpoint else ""

    def start(self) -> None:
        """Begin to count, and to show the counts."""
        self._stack.enter_context(grpc_log_counted(self.observer))
        if line := self._settings.metrics_line:
            self._send = reporter(socket.socket(fileno=line))
        elif self._settings.metrics_listen:
            from mlpserve_server.observability.endpoint import (
                Endpoint,  # only who wants it waits for it
            )

            endpoint = self._endpoint = Endpoint(self._settings.metrics_listen)
            self._send = lambda report: endpoint.totals.add(0, report)
        if self._journal:
            self._journal.start()

    def close(self) -> None:
        """Count what is left, and end."""
        if self._journal:
            self._journal.close()
        if self._endpoint:
            self._endpoint.close()
        self._stack.close()

    def watch_followers(self, followers: Sequence[Follower]) -> None:
        """Read from these whether they live, and from the recorder's own."""
        own = [self._journal.follower] if self._journal else []
        self.observer.gauge(
            "mlpserve_follower_alive", lambda: {(f.name,): f.alive for f in (*own, *followers)}
        )

    def watch(
        self, manager: ModelManager, transport: StandardTransport, ready: Callable[[], bool]
    ) -> None:
        """Read the gauges from these."""
        gauge = self.observer.gauge
        build = _build(transport)
        started = time.time()
        gauge("mlpserve_calls_waiting", lambda: {(): transport.waiting})
        gauge("mlpserve_workers", lambda: {(): 1})
        gauge("mlpserve_workers_ready", lambda: {(): ready()})
        gauge("mlpserve_store_read_timestamp_seconds", lambda: {(): manager.last_read})
        gauge("mlpserve_model_info", lambda: _served(manager))
        gauge("mlpserve_model_created_timestamp_seconds", lambda: _created(manager))
        gauge("mlpserve_build_info", lambda: {build: 1})
        gauge("mlpserve_start_timestamp_seconds", lambda: {(): started})
        gauge("mlpserve_cpu_seconds_total", _CpuSeconds())
        if _PROCESS.exists():
            gauge("mlpserve_resident_memory_bytes", _resident)
            gauge("mlpserve_open_files", lambda: {(): len([*(_PROCESS / "fd").iterdir()])})


def _listeners(settings: Settings) -> list[Listener]:
    listeners: list[Listener] = []
    if settings.access_log:
        listeners.append(AccessLog(settings.access_log))
    if settings.traces:
        try:
            from mlpserve_server.observability.tracing import Traces
        except ModuleNotFoundError as error:
            text = f"traces need {error.name}: pip install 'mlpserve[telemetry]'"
            raise TelemetryError(text) from error
        listeners.append(Traces(settings.traces))
    return listeners


def _nowhere(report: Report) -> None:
    """Where reports go before the start."""


def _served(manager: ModelManager) -> _Values:
    if model := manager.current:
        manifest = model.manifest
        return {(manifest.model, str(manifest.version), manifest.digest): 1}
    return {}


def _created(manager: ModelManager) -> _Values:
    if model := manager.current:
        return {(str(model.manifest.version),): model.manifest.created.timestamp()}
    return {}


def _build(transport: StandardTransport) -> tuple[str, ...]:
    ours, python = version("mlpserve"), platform.python_version()
    return ours, python, grpc.__version__, np.__version__, transport.name


def _resident() -> _Values:
    pages = int((_PROCESS / "statm").read_text().split()[1])
    return {(): pages * os.sysconf("SC_PAGE_SIZE")}


class _CpuSeconds:
    """What this process has used since it was asked last."""

    def __init__(self) -> None:
        self._before = 0.0

    def __call__(self) -> _Values:
        now = time.process_time()
        since, self._before = now - self._before, now
        return {(): since}
