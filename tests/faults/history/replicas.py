"""A replica: a server as a process of its own, with faults done to it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mlpserve_client import Client, Tls
from tests.support.processes import children

__all__ = ["Replica", "server_command"]

# Lines that no fault from outside may cause: they report faults of the server itself.
_OUR_FAULTS = (
    "internal error",
    "a follower failed",
    "a follower ended",
    "the direct transport failed at an event",
    "Traceback",
)
_START_SECONDS = 60.0


class Replica:
    """A server on a port that it keeps when it is started again.

    Attributes:
        number: its number.
        port: where it listens.
        workers: how many workers it has.
        cache: where it keeps versions of an object store.
        our_faults: lines of its log that report a fault of the server itself.

    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        tls: Tls,
        log: Path,
        workers: int,
        cache: Path,
    ) -> None:
        self.number = number
        self.port = _free_port()
        self.workers = workers
        self.cache = cache
        self.our_faults: list[str] = []
        own = ["--listen", f"127.0.0.1:{self.port}", "--workers", str(workers)]
        own += ["--cache-dir", str(cache)]
        self._command = [*command, *own]
        self._environment = {**os.environ, **environment}
        self._tls = tls
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._running.pid

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reader.start()

    def wait_ready(self) -> None:
        """Wait until it answers; raises MlpserveError after a minute."""
        with Client(f"127.0.0.1:{self.port}", tls=self._tls) as client:
            client.wait_until_ready(timeout=_START_SECONDS)

    def kill(self) -> None:
        """Kill the process and its workers at once, as when the machine ends."""
        for pid in [self.pid, *children(self.pid)]:
            os.kill(pid, signal.SIGKILL)
        self._ended()

    def terminate(self) -> int:
        """Ask it to stop, and return its exit code."""
        self._running.terminate()
        return self._ended()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its workers."""
        for pid in [self.pid, *children(self.pid)]:
            os.kill(pid, number)

    def stop(self) -> int:
        """End it if it runs; return its exit code, 0 if it did not run."""
        return self.terminate() if self._process else 0

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process, "it does not run"
        return self._process

    def _ended(self) -> int:
        process, self._process = self._running, None
        code = process.wait(timeout=60)
        self._reader.join(timeout=60)
        if process.stderr:
            process.stderr.close()
        return code

    def _read(self, lines: IO[str]) -> None:
        is_traceback = False
        with self._log.open("a") as log:
            for line in lines:
                log.write(line)
                log.flush()
                is_traceback = is_traceback and not line.startswith("{")
                if is_traceback or any(fault in line for fault in _OUR_FAULTS):
                    self.our_faults.append(f"replica {self.number}: {line.rstrip()}")
                    is_traceback = is_traceback or "Traceback" in line


def server_command(*arguments: str) -> list[str]:
    """Return the command of a server with these arguments."""
    program = str(Path(sys.executable).with_name("mlpserve-server"))
    return [program, "--log-format", "json", *arguments]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
