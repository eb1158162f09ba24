"""Workers report their metrics to the supervisor, as JSON lines, each over its own socket."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mlpserve_model.process.follower import Follower, Over
from mlpserve_server.observability.metrics import MetricDelta

__all__ = ["Sums", "follow", "reporter"]


class Sums(Protocol):
    """What adds up the reports: aggregation.WorkerAggregator."""

    def add(self, worker: int, report: MetricDelta) -> None:
        """Add a report of a worker."""
        ...

    def drop_gauges(self, worker: int) -> None:
        """Drop the gauges of a worker that has ended."""
        ...


def reporter(line: socket.socket) -> Callable[[MetricDelta], None]:
    """Return a function that sends reports over this socket while its other end is open."""

    def report(report: MetricDelta) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(json.dumps(report).encode() + b"\n")

    return report


def follow(sums: Sums, worker: int, line: socket.socket) -> None:
    """Add up the reports from this socket, in a thread, until its other end is closed."""
    reports = line.makefile("rb")

    def add_report() -> None:
        try:
            report = reports.readline()
        except ConnectionResetError:
            report = b""
        if not report.endswith(b"\n"):  # the end, or half a report of a worker that was killed
            end()
            raise Over
        sums.add(worker, json.loads(report))

    def end() -> None:
        reports.close()
        line.close()
        sums.drop_gauges(worker)

    def failed() -> None:
        sums.add(0, [("mlpserve_follower_failures_total", ("reports",), 1)])

    def lost() -> None:
        end()
        sums.add(0, [("mlpserve_follower_alive", ("reports",), 0)])

    Follower("reports", add_report, 0, failed, lost).start()
