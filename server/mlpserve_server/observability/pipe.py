"""How the counts of workers come together: line by line, each over a socket of its own.

The process that adds them up needs nothing of what the workers are made of.
"""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mlpserve_server.observability.metrics import Report

__all__ = ["Sums", "follow", "reporter"]


class Sums(Protocol):
    """What adds up reports: totals.Totals."""

    def add(self, worker: int, report: Report) -> None:
        """Add what a worker reports."""
        ...

    def forget(self, worker: int) -> None:
        """A worker has ended."""
        ...


def reporter(line: socket.socket) -> Callable[[Report], None]:
    """What sends reports over this socket, as long as the other end is there."""

    def report(report: Report) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(json.dumps(report).encode() + b"\n")

    return report


def follow(sums: Sums, worker: int, line: socket.socket) -> threading.Thread:
    """Add up what comes over this socket until its other end is closed; gives the thread."""

    def run() -> None:
        with line, line.makefile("rb") as reports, suppress(ConnectionResetError):
            for report in reports:
                if report.endswith(b"\n"):  # not half of one, from a worker that was killed
                    sums.add(worker, json.loads(report))
        sums.forget(worker)

    thread = threading.Thread(target=run, name=f"metrics-of-{worker}", daemon=True)
    thread.start()
    return thread
