"""Several processes on one port: started, watched, replaced and stopped together.

The parent never imports gRPC. The kernel spreads connections over the processes
(SO_REUSEPORT); each follows the store by itself.
"""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from mlpserve_server.observability.pipe import Sums, follow
from mlpserve_server.settings import Settings

__all__ = ["PortTaken", "supervise", "unshareable"]

# A worker is this very command; flags given last win. With -P it imports nothing from the current
# folder.
_COMMAND = [sys.executable, "-P", "-m", "mlpserve_server"]
_CANNOT_START = (1, 2)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds before a worker is replaced
_STEADY_SECONDS = 10.0  # whoever lived this long starts with the first pause again
_LOOK_SECONDS = 0.1

log = logging.getLogger(__name__)


class PortTaken(Exception):
    """Somebody else listens on an address already."""


def unshareable(addresses: Sequence[str]) -> str | None:
    """Why several processes cannot listen on these addresses; None when they can."""
    if all(address.startswith("unix:") for address in addresses):
        return "a socket file cannot be shared"
    if not hasattr(socket, "SO_REUSEPORT"):
        return "this system cannot share ports"
    return None


def supervise(settings: Settings, arguments: Sequence[str], stop: threading.Event) -> int:
    """Keep `settings.workers` processes running until `stop` is set; return the exit code.

    Raises PortTaken. Until one has listened, a worker that cannot start ends them all, with
    its exit code: the settings are wrong. Later it is replaced like any that died.
    """
    with ExitStack() as stack:
        totals = stack.enter_context(_shown(settings.metrics_listen))
        addresses = [stack.enter_context(_reserved(address)) for address in settings.listen]
        workers = [
            _Worker(number, _command(arguments, addresses, number), totals)
            for number in range(1, settings.workers + 1)
        ]
        code, started = 0, False
        while not code and not stop.wait(_LOOK_SECONDS):
            started = started or any(worker.listens() for worker in workers)
            code = max(worker.look(started) for worker in workers)
        for worker in workers:
            worker.ask_to_stop()
        deadline = time.monotonic() + settings.drain_seconds + settings.grace_seconds + 5
        return max(code, *(worker.wait(deadline) for worker in workers))


class _Worker:
    """One process and its successors."""

    def __init__(self, number: int, command: Sequence[str], totals: Sums | None) -> None:
        self._number = number
        self._command = command
        self._totals = totals
        self._pause = _FIRST_PAUSE
        self._ended: float | None = None
        self._asked = False
        self._process = self._spawn()

    def listens(self) -> bool:
        """Whether the process has said since the last look that it listens."""
        try:
            return bool(self._line.recv(1))
        except BlockingIOError:
            return False

    def look(self, started: bool) -> int:
        """Replace the process if it has died; its exit code if nobody could start yet, else 0."""
        code = self._process.poll()
        if code is None:
            return 0
        if code in _CANNOT_START and not started:
            return code
        now = time.monotonic()
        if self._ended is None:
            self._ended = now
            if now - self._started > _STEADY_SECONDS:
                self._pause = _FIRST_PAUSE
            fields = {"worker": self._number, "exit_code": code, "pause_seconds": self._pause}
            log.error("a worker ended", extra=fields)
            if self._totals:
                self._totals.add(0, [("mlpserve_worker_ends_total", (), 1)])
        if now - self._ended >= self._pause:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._line.close()
            self._process = self._spawn()
        return 0

    def ask_to_stop(self) -> None:
        """Let the process drain and stop."""
        self._asked = self._process.poll() is None
        self._process.terminate()

    def wait(self, deadline: float) -> int:
        """Wait for the end, at most until the deadline; 1 if it failed when asked to, else 0."""
        with self._line:
            try:
                code = self._process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                return 1
        # Below 0 is a signal: ours before the worker could take it, or a crash just before ours.
        return int(self._asked and code > 0)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        self._started, self._ended = time.monotonic(), None
        # Its other end tells a worker when we are gone, however we went.
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        # A session of its own: Ctrl-C comes here, and the workers hear of it from here alone.
        with theirs, _reporting(self._totals, self._number) as line:
            return subprocess.Popen(
                [*self._command, *(f"--metrics-line={fd}" for fd in line)],
                stdin=theirs.fileno(),
                pass_fds=line,
                start_new_session=True,
            )


@contextmanager
def _shown(address: str | None) -> Iterator[Sums | None]:
    """The sums of what the workers report, shown at this address; None without an address."""
    if not address:
        yield None
        return
    from mlpserve_server.observability.endpoint import (
        Endpoint,  # only who wants metrics waits for it
    )

    with closing(Endpoint(address)) as endpoint:
        yield endpoint.totals


@contextmanager
def _reporting(totals: Sums | None, number: int) -> Iterator[list[int]]:
    """A descriptor for a worker to report on; none where nobody adds up."""
    if totals is None:
        yield []
        return
    ours, theirs = socket.socketpair()
    follow(totals, number, ours)
    with theirs:
        yield [theirs.fileno()]


def _command(arguments: Sequence[str], addresses: Sequence[str], number: int) -> list[str]:
    # A socket file cannot be shared: the first worker has it alone.
    mine = [a for a in addresses if number == 1 or not a.startswith("unix:")]
    own = [f"--listen={','.join(mine)}", "--workers=1", f"--worker={number}"]
    return [*_COMMAND, *arguments, *own]


@contextmanager
def _reserved(address: str) -> Iterator[str]:
    """Hold a port without listening on it; gives the address with the port it has become."""
    if address.startswith("unix:"):
        yield address
        return
    host, _, port = address.rpartition(":")
    with _bound(address, host.strip("[]"), int(port)) as shared:
        yield f"{host}:{shared.getsockname()[1]}"


def _bound(address: str, host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        with socket.socket(family) as alone:
            # Without SO_REUSEPORT this fails when anyone listens there, a twin of ours too.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
            alone.listen()
        shared = socket.socket(family)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(place)
    except OSError as error:
        raise PortTaken(f"cannot listen on {address}: {error.strerror}") from error
    return shared
