"""A server as a tree of processes: started, watched over /proc, stopped."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["TICKS", "Running", "StartError", "free_port"]

MARK = "MLPSERVE_BENCHMARK"
STOP_SECONDS = 15.0
TICKS = os.sysconf("SC_CLK_TCK")
# From clock_getcpuclockid of Linux: the clock that counts what the scheduler gave.
CPU_CLOCK = 2


class StartError(Exception):
    """A server ended, or gave no right answer in time; the text ends with what it wrote."""


class Running:
    """One server and every process that it started, known by a mark in their environment.

    It works in a folder of its own."""

    def __init__(
        self, command: Sequence[str], port: int, variables: Mapping[str, str], folder: Path
    ) -> None:
        self.port = port
        self._mark = f"{MARK}={secrets.token_hex(8)}"
        name, _, value = self._mark.partition("=")
        self._output = folder / "output"
        self.started = time.perf_counter()
        self._log: IO[bytes] = self._output.open("wb")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **variables, name: value},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def check_alive(self) -> None:
        """Raises StartError when the first process has ended."""
        code = self._process.poll()
        if code is not None:
            raise StartError(f"ended with {code}: {self.last_words()}")

    def last_words(self) -> str:
        """The last lines of what it wrote."""
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-3:])[-400:]

    def pids(self) -> list[int]:
        """All its processes now."""
        return [
            int(folder.name) for folder in Path("/proc").glob("[0-9]*") if self._is_ours(folder)
        ]

    def cpu_seconds(self) -> dict[int, float]:
        """User and system time so far, by process."""
        used = {}
        for pid in self.pids():
            # The CPU clock of another process: /proc counts in ticks of ten milliseconds.
            with contextlib.suppress(OSError):
                used[pid] = time.clock_gettime((~pid << 3) | CPU_CLOCK)
        return used

    def memory_bytes(self) -> int:
        """Resident memory; what several processes share counts once (PSS)."""
        total = 0
        for pid in self.pids():
            for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        """SIGTERM to the first, SIGKILL to what is left after a while."""
        if self._process.poll() is None:
            self._process.terminate()
        deadline = time.perf_counter() + STOP_SECONDS
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        while (left := self.pids()) and time.perf_counter() < deadline:
            time.sleep(0.1)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()

    def _is_ours(self, folder: Path) -> bool:
        return self._mark.encode() in _read(folder / "environ").split(b"\0")


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _read(path: Path) -> bytes:
    """The file of a process that may end at any moment, or not be ours."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
