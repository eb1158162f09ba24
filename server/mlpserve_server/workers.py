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
from contextlib import ExitStack, contextmanager

from mlpserve_server.settings import Settings

__all__ = ["PortTaken", "can_share_ports", "supervise"]

# A worker is this very command; flags given last win.
_COMMAND = [
    sys.executable,
    "-c",
    "import sys; from mlpserve_server.cli import main; sys.exit(main())",
]
_CANNOT_START = (1, 2)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds before a worker is replaced
_STEADY_SECONDS = 10.0  # whoever lived this long starts with the first pause again
_LOOK_SECONDS = 0.1

log = logging.getLogger(__name__)


class PortTaken(Exception):
    """Somebody else listens on an address already."""


def can_share_ports() -> bool:
    """Whether this system lets several processes listen on one port."""
    return hasattr(socket, "SO_REUSEPORT")


def supervise(settings: Settings, arguments: Sequence[str], stop: threading.Event) -> int:
    """Keep `settings.workers` processes running until `stop` is set; return the exit code.

    Raises PortTaken. A worker that cannot start ends them all, with its exit code.
    """
    with ExitStack() as stack:
        addresses = [stack.enter_context(_reserved(address)) for address in settings.listen]
        workers = [
            _Worker(number, _command(arguments, addresses, number))
            for number in range(1, settings.workers + 1)
        ]
        code = 0
        while not code and not stop.wait(_LOOK_SECONDS):
            code = max(worker.look() for worker in workers)
        for worker in workers:
            worker.ask_to_stop()
        deadline = time.monotonic() + settings.drain_seconds + settings.grace_seconds + 5
        return max(code, *(worker.wait(deadline) for worker in workers))


class _Worker:
    """One process and its successors."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self._number = number
        self._command = command
        self._pause = _FIRST_PAUSE
        self._ended: float | None = None
        self._process = self._spawn()

    def look(self) -> int:
        """Replace the process if it has died; an exit code if it could not start, else 0."""
        code = self._process.poll()
        if code is None or code in _CANNOT_START:
            return code or 0
        now = time.monotonic()
        if self._ended is None:
            self._ended = now
            if now - self._started > _STEADY_SECONDS:
                self._pause = _FIRST_PAUSE
            fields = {"worker": self._number, "exit_code": code, "pause_seconds": self._pause}
            log.error("a worker ended", extra=fields)
        if now - self._ended >= self._pause:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._close()
            self._process = self._spawn()
        return 0

    def ask_to_stop(self) -> None:
        """Let the process drain and stop."""
        self._process.terminate()

    def wait(self, deadline: float) -> int:
        """Wait for the end, at most until the deadline; 0 when it came as asked, else 1."""
        try:
            code = self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._close()
        return int(code != 0)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        self._started, self._ended = time.monotonic(), None
        # A session of its own: Ctrl-C comes here, and the workers hear of it from here alone.
        # The pipe tells a worker when we are gone, however we went.
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)

    def _close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()


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
