"""What becomes of a server's observations, as the settings ask: metrics, access log, traces."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mlpserve_model.process.follower import Follower
from mlpserve_server.observability.access_log import AccessLog
from mlpserve_server.observability.grpc_log import grpc_log_counted
from mlpserve_server.observability.metrics import MetricDelta
from mlpserve_server.observability.observer import Observer
from mlpserve_server.observability.pipe import reporter
from mlpserve_server.observability.recorder import CallSink, Recorder
from mlpserve_server.settings import Settings

if TYPE_CHECKING:
    from mlpserve_server.observability.endpoint import Endpoint

__all__ = ["Telemetry", "TelemetryError"]


class TelemetryError(Exception):
    """A package for traces is not installed."""


class Telemetry:
    """The observer that the settings ask for, and where its metrics go.

    Args:
        settings: which of metrics, access log and traces there are.
        on_end: called when the thread that counts ends though nobody stopped it.

    Attributes:
        counts: whether there are metrics.

    Raises:
        TelemetryError: traces are asked for, and their library is not installed.

    """

    def __init__(self, settings: Settings, on_end: Callable[[], None]) -> None:
        self._settings = settings
        self._endpoint: Endpoint | None = None
        self._stack = ExitStack()
        self._send: Callable[[MetricDelta], None] = _nowhere
        self.counts = counts = bool(settings.metrics_listen or settings.metrics_line)
        sinks = _sinks(settings)
        report = (lambda report: self._send(report)) if counts else None
        self._recorder = Recorder(report, sinks, on_end) if counts or sinks else None
        self.observer = self._recorder or Observer()

    @property
    def followers(self) -> list[Follower]:
        """The follower that counts, if there is one."""
        return [self._recorder.follower] if self._recorder else []

    @property
    def metrics_address(self) -> str:
        """The address of this process's metrics endpoint, with its port; empty if it has none."""
        return self._endpoint.address if self._endpoint else ""

    def start(self) -> None:
        """Start to count, and to serve or report the counts.

        Raises:
            PortTaken: another program listens on the address of the metrics.

        """
        self._stack.enter_context(grpc_log_counted(self.observer))
        if line := self._settings.metrics_line:
            self._send = reporter(socket.socket(fileno=line))
        elif self._settings.metrics_listen:
            from mlpserve_server.observability.endpoint import (
                Endpoint,  # imported only where it is used
            )

            endpoint = self._endpoint = Endpoint(self._settings.metrics_listen)
            self._send = lambda report: endpoint.totals.add(0, report)
        if self._recorder:
            self._recorder.start()

    def close(self) -> None:
        """Count and report the rest, and stop."""
        if self._recorder:
            self._recorder.close()
        if self._endpoint:
            self._endpoint.close()
        self._stack.close()


def _sinks(settings: Settings) -> list[CallSink]:
    sinks: list[CallSink] = []
    if settings.access_log:
        sinks.append(AccessLog(settings.access_log))
    if settings.traces:
        try:
            from mlpserve_server.observability.tracing import Traces
        except ModuleNotFoundError as error:
            raise TelemetryError(
                f"traces need the package {error.name}: install the extra telemetry, "
                "in a checkout: pip install '.[telemetry]'"
            ) from error
        sinks.append(Traces(settings.traces))
    return sinks


def _nowhere(report: MetricDelta) -> None:
    """Discard a report: nothing is reported before the start."""
