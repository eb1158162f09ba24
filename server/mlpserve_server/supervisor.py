"""The supervisor starts, watches, replaces and stops several worker processes on one port.

The supervisor never imports gRPC. The kernel distributes connections over the workers
(SO_REUSEPORT). A thread of the supervisor polls the store for all workers.
"""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from mlpserve_model import StoreError
from mlpserve_model.process.follower import Follower
from mlpserve_server.lifecycle.store_watch import StoreWatch
from mlpserve_server.observability.pipe import Sums, follow
from mlpserve_server.settings import Settings
from mlpserve_server.system.ports import reserved

__all__ = ["supervise"]

# A worker is this same command; the last of several equal flags counts. With -P it imports nothing
# from the current folder.
_COMMAND = [sys.executable, "-P", "-m", "mlpserve_server"]
_CANNOT_START = (1, 2)
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 5.0  # seconds before a worker is replaced
_STEADY_SECONDS = 10.0  # a worker that ran this long is replaced after the first pause again
_CHECK_SECONDS = 0.1

log = logging.getLogger(__name__)


def supervise(settings: Settings, arguments: Sequence[str], stop: threading.Event) -> int:
    """Keep `settings.workers` processes running until `stop` is set.

    A worker whose first start fails stops all workers, because the settings are wrong. A worker
    that has listened before is replaced when it ends.

    Returns:
        The exit code: 0, or that of a worker that failed.

    Raises:
        PortTaken: another program listens on an address.

    """
    with ExitStack() as stack:
        totals = stack.enter_context(_shown(settings.metrics_listen))
        watch = stack.enter_context(_watching(settings, totals))
        addresses = [stack.enter_context(reserved(address)) for address in settings.listen]
        workers = [
            _Worker(number, _command(settings, arguments, addresses, number), totals, watch)
            for number in range(1, settings.workers + 1)
        ]
        code = 0
        while not code and not stop.wait(_CHECK_SECONDS):
            code = max(worker.restart_if_ended() for worker in workers)
        for worker in workers:
            worker.request_stop()
        deadline = time.monotonic() + settings.drain_seconds + settings.grace_seconds + 5
        return max(code, *(worker.wait(deadline) for worker in workers))


class _Worker:
    """A worker process and those that replace it."""

    def __init__(
        self, number: int, command: Sequence[str], totals: Sums | None, watch: StoreWatch | None
    ) -> None:
        self._number = number
        self._command = command
        self._totals = totals
        self._watch = watch
        self._pause = _FIRST_PAUSE
        self._started = time.monotonic()
        self._ended: float | None = None
        self._line: socket.socket | None = None
        self._stop_requested = False
        self._listened = False
        self._process: subprocess.Popen[bytes] | None = None
        self._spawn()

    def restart_if_ended(self) -> int:
        """Start the process again if it has ended; return its code if it never listened, or 0."""
        if self._process is not None:
            code = self._process.poll()
            # Read after poll(): the process may have reported just before it ended.
            self._listened = self._listened or self._listens()
            if code is None:
                return 0
            if code in _CANNOT_START and not self._listened:
                return code
            self._note_end(code)
        if self._ended is not None and time.monotonic() - self._ended >= self._pause:
            self._pause = min(self._pause * 2, _MAX_PAUSE)
            self._spawn()
        return 0

    def _note_end(self, code: int) -> None:
        self._process, self._ended = None, time.monotonic()
        if self._ended - self._started > _STEADY_SECONDS:
            self._pause = _FIRST_PAUSE
        fields = {"worker": self._number, "exit_code": code, "pause_seconds": self._pause}
        log.error("a worker ended", extra=fields)
        if self._totals:
            self._totals.add(0, [("mlpserve_worker_ends_total", (), 1)])

    def _listens(self) -> bool:
        """Return True if the process has reported since the last call that it listens."""
        try:
            return bool(self._line and self._line.recv(1))
        except BlockingIOError:
            return False

    def request_stop(self) -> None:
        """Make the process drain and stop.

        Not by a signal: the sender of ours may have sent one to the workers too, as systemd does,
        and a second one ends a process at once.
        """
        if self._process is not None and self._line:
            self._stop_requested = self._process.poll() is None
            self._line.close()

    def wait(self, deadline: float) -> int:
        """Wait until the process has ended, then kill it; return 1 if its stop failed, else 0."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 1
        # Negative: ended by a signal, by ours before its handler was set, or by an earlier crash.
        return int(self._stop_requested and code > 0)

    def _spawn(self) -> None:
        """Start the process; if the system refuses, log that, and try again after the pause."""
        if self._line:
            self._line.close()
            self._line = None
        try:
            self._process = self._start()
            self._started, self._ended = time.monotonic(), None
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread for its reports
            self._ended = time.monotonic()
            fields = {"worker": self._number, "reason": str(error), "pause_seconds": self._pause}
            log.error("no process for a worker", extra=fields)

    def _start(self) -> "subprocess.Popen[bytes]":
        # The worker stops when this end is closed, which the system does even after a crash.
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        # In a session of its own a worker does not receive the terminal's Ctrl-C: the supervisor
        # stops it.
        with ExitStack() as stack:
            stack.enter_context(theirs)
            lines = {}
            if self._totals:
                reports = _reporting(self._totals, self._number)
                lines["--metrics-line"] = stack.enter_context(reports)
            if self._watch:
                lines["--watch-line"] = stack.enter_context(self._watch.line(self._number))
            return subprocess.Popen(
                [*self._command, *(f"{flag}={line}" for flag, line in lines.items())],
                stdin=theirs.fileno(),
                pass_fds=[*lines.values()],
                start_new_session=True,
            )


@contextmanager
def _shown(address: str | None) -> Iterator[Sums | None]:
    """Yield the aggregated metrics that this address serves; None without an address."""
    if not address:
        yield None
        return
    from mlpserve_server.observability.endpoint import (
        Endpoint,  # only who wants metrics waits for it
    )

    with closing(Endpoint(address)) as endpoint:
        yield endpoint.totals


@contextmanager
def _watching(settings: Settings, totals: Sums | None) -> Iterator[StoreWatch | None]:
    """Poll the store meanwhile; yield what does, None if it cannot be polled."""
    try:
        watch = StoreWatch(settings.store, settings.model)
    except StoreError:  # with which the workers will not start
        yield None
        return

    def count(metric: str, amount: float) -> None:
        if totals:
            totals.add(0, [(metric, ("watch",), amount)])

    failed = partial(count, "mlpserve_follower_failures_total", 1)
    lost = partial(count, "mlpserve_follower_alive", 0)
    follower = Follower("watch", watch.poll, settings.poll_seconds, failed, lost)
    follower.start()
    try:
        yield watch
    finally:
        follower.stop()
        watch.close()


@contextmanager
def _reporting(totals: Sums, number: int) -> Iterator[int]:
    """Yield the descriptor on which a worker reports its metrics."""
    ours, theirs = socket.socketpair()
    follow(totals, number, ours)
    with theirs:
        yield theirs.fileno()


def _command(
    settings: Settings, arguments: Sequence[str], addresses: Sequence[str], number: int
) -> list[str]:
    # Processes cannot share a socket file: the first worker alone listens on it.
    mine = [a for a in addresses if number == 1 or not a.startswith("unix:")]
    own = [f"--listen={','.join(mine)}", "--workers=1", f"--worker={number}"]
    own.append(f"--max-bytes={settings.max_bytes}")  # its share, which depends on their number
    # Behind `--`, which ends the flags of a command, these would not be flags.
    return [*_COMMAND, *(word for word in arguments if word != "--"), *own]
