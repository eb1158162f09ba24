"""How the counts of workers come together: line by line, each over a socket of its own.

The process that adds them up needs nothing of what the workers are made of.
"""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mlpserve_model.process.follower import Follower, Over
from mlpserve_server.observability.metrics import MetricDelta

__all__ = ["Sums", "follow", "reporter"]


class Sums(Protocol):
    """What adds up reports: totals.WorkerAggregator."""

    def add(self, worker: int, report: MetricDelta) -> None:
        """Add what a worker reports."""
        ...

    def forget(self, worker: int) -> None:
        """A worker has ended."""
        ...


def reporter(line: socket.socket) -> Callable[[MetricDelta], None]:
    """What sends reports over this socket, as long as the other end is there."""

    def report(report: MetricDelta) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(json.dumps(report).encode() + b"\n")

    return report


def follow(sums: Sums, worker: int, line: socket.socket) -> None:
    """Add up what comes over this socket, in a thread, until its other end is closed."""
    reports = line.makefile("rb")

    def look() -> None:
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
        sums.forget(worker)

    def failed() -> None:
        sums.add(0, [("mlpserve_follower_failures_total", ("reports",), 1)])

    def lost() -> None:
        end()
        sums.add(0, [("mlpserve_follower_alive", ("reports",), 0)])

    Follower("reports", look, 0, failed, lost).start()
