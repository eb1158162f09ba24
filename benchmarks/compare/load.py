"""Load on a running server with h2load, a generator in C, and what it cost the server."""

import re
import resource
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.compare.contracts import Call, answer_of
from benchmarks.compare.environments import Absent
from benchmarks.compare.processes import TICKS, Running

__all__ = ["Load", "LoadError", "Shape", "check_generator", "measure"]

# Beyond the time of the load itself: connecting, and the calls that are still open.
PATIENCE_SECONDS = 30
GRPC_PREFIX_BYTES = 5


class LoadError(Exception):
    """Calls failed under load, so that their figures would mean nothing."""


class Shape(NamedTuple):
    """How many connections, and how many calls in flight on each."""

    connections: int
    streams: int

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer at any moment."""
        return self.connections * self.streams


class Load(NamedTuple):
    """What one measurement gave."""

    calls: int
    calls_s: float
    cpu_us: float  # of the server, user and system, a call
    p50_us: float
    p99_us: float
    p999_us: float
    generator_us: float  # what a call cost h2load itself, on the same cores
    others: float  # the part of all cores' time that other programs took meanwhile


def check_generator() -> str:
    """The version of h2load; raises Absent."""
    if not shutil.which("h2load"):
        raise Absent("no h2load here; in Debian: nghttp2-client")
    return subprocess.check_output(["h2load", "--version"], text=True).strip()


def measure(server: Running, call: Call, shape: Shape, seconds: float, folder: Path) -> Load:
    """Keep the calls in flight for so long; raises LoadError when any of them fails."""
    answer_bytes = len(answer_of(call, server.port)) + GRPC_PREFIX_BYTES
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    began = _Times.now(server)
    report = _h2load(call, server.port, shape, seconds, folder, log)
    spent = _Times.now(server).since(began)
    server.check_alive()
    calls = _check(report, call, shape, answer_bytes)
    # Each line: when it was sent (in microseconds), the HTTP status, how long it took.
    sent, took = np.loadtxt(log, usecols=(0, 2), ndmin=2).T
    span = float(((sent + took).max() - sent.min()) / 1e6)
    p50, p99, p999 = np.percentile(took, [50, 99, 99.9]).tolist()
    server_us, generator_us = (used / calls * 1e6 for used in (spent.server, spent.generator))
    return Load(
        calls, len(took) / span, server_us, p50, p99, p999, generator_us, spent.others_share
    )


class _Times(NamedTuple):
    """CPU seconds so far; after `since`, those in between."""

    by_process: dict[int, float]
    generator: float
    busy: float
    idle: float

    @classmethod
    def now(cls, server: Running) -> "_Times":
        # All processes that were started here and waited for: h2load alone, in between.
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = sum(ticks[3:5]) / TICKS  # and waiting for disks
        busy = sum(ticks) / TICKS - idle
        return cls(server.cpu_seconds(), children.ru_utime + children.ru_stime, busy, idle)

    def since(self, before: "_Times") -> "_Times":
        old = before.by_process
        used = {pid: value - old.get(pid, 0.0) for pid, value in self.by_process.items()}
        changes = (now - then for now, then in zip(self[1:], before[1:], strict=True))
        return _Times(used, *changes)

    @property
    def server(self) -> float:
        return sum(self.by_process.values())

    @property
    def others_share(self) -> float:
        return max(0.0, self.busy - self.server - self.generator) / (self.busy + self.idle)


def _h2load(call: Call, port: int, shape: Shape, seconds: float, folder: Path, log: Path) -> str:
    body = folder / "body"
    body.write_bytes(call.body)
    command = [
        *("h2load", "--duration", f"{round(seconds * 1000)}ms", "--threads", "1"),
        *("--clients", str(shape.connections), "--max-concurrent-streams", str(shape.streams)),
        *("--data", str(body), "--log-file", str(log)),
        *(part for pair in call.headers.items() for part in ("--header", ": ".join(pair))),
        *(() if call.grpc else ("--h1",)),
        f"{'https' if call.ca else 'http'}://127.0.0.1:{port}{call.path}",
    ]
    patience = seconds + PATIENCE_SECONDS
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"h2load did not end within {patience:g} s") from error
    if done.returncode:
        raise LoadError(f"h2load failed: {done.stderr.strip()[-200:]}")
    return done.stdout


def _check(report: str, call: Call, shape: Shape, answer_bytes: int) -> int:
    """The number of calls that were answered; raises LoadError unless each was, in full.

    h2load does not look into trailers, where gRPC says that a call failed; but such an answer
    has no data, so their sum tells.
    """
    # What failed is counted as done and as failed; as errored too, when the stream was reset.
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (done|failed|errored|2xx)", report)}
    data = int(re.findall(r"\((\d+)\) data", report)[0])
    done = counts["done"]
    # At the end some have begun to answer, or have sent all but the trailers.
    in_full = done <= counts["2xx"] <= done + shape.in_flight
    if not done or counts["failed"] or counts["errored"] or not in_full:
        raise LoadError(f"{counts['failed']} of {done} calls failed")
    # JSON's length may vary.
    expected, slack = done * answer_bytes, shape.in_flight * answer_bytes
    if call.grpc and not expected <= data <= expected + slack:
        raise LoadError(f"{done} answers came with {data} bytes, expected {expected}")
    return done
