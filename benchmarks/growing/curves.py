"""What a server costs as one thing grows: connections, rows, weights, versions, models, workers."""

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.compare.contracts import Call, own_contract
from benchmarks.compare.load import Load, Shape, measure
from benchmarks.compare.numpy_alone import numpy_alone
from benchmarks.compare.processes import Running
from benchmarks.compare.rounds import (
    MANY,
    SHAPES,
    SHARED,
    WARM_UP_SECONDS,
    running,
    wait_until_right,
)
from benchmarks.compare.servers import ours
from benchmarks.compare.workload import Workload, make, publish_small
from benchmarks.many_models import IDLE_SECONDS, SETTLE_SECONDS, cpu, name, publish
from mlpserve_client import Client
from mlpserve_model import Network, Store

__all__ = ["CURVES", "Curve", "Point"]

# Figures by their headings; the first is what grows.
Point = dict[str, float]

# Beyond that, calls that wait are refused.
MAX_CALLING = 1000
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and empty SETTINGS
NETWORKS = ((784, 12, 10), (784, 128, 10), (784, 768, 512, 10), (784, 2800, 2800, 10),
            (784, 7360, 7360, 10))  # fmt: skip
SMALL_BATCH = 64
PUBLISHES = 9


class Curve(NamedTuple):
    """A table and a panel of the figure."""

    name: str
    grows: str  # the heading of what grows
    drawn: str  # the heading of the figure that is drawn
    points: Callable[[Path, float], Iterator[Point]]


class Served(NamedTuple):
    """A server that is warm, the call of one row, and the seconds to its first right answer."""

    process: Running
    single: Call
    start_s: float

    def figures(self) -> Point:
        """Return the start's seconds, and the memory that its processes take now."""
        return {"s to the first answer": self.start_s, "MiB": self.process.memory_bytes() / 2**20}


def connections(folder: Path, seconds: float) -> Iterator[Point]:
    """One call in flight on each connection, on a thousand at most; further ones stay idle.

    What connecting costs is in the figures.
    """
    with served(make(folder)) as server, ExitStack() as idle:
        for count in (1, 10, 100, 1000, 10_000):
            calling = min(count, MAX_CALLING)
            for _ in range(count - calling):
                opened = socket.create_connection(("127.0.0.1", server.process.port))
                idle.callback(opened.close)
                opened.sendall(HTTP2_PREFACE)
            load = measure(server.process, server.single, Shape(calling, 1), seconds, folder)
            yield {
                "connections": count, "of them calling": calling,
                **of_calls(load), "MiB": server.figures()["MiB"],
            }  # fmt: skip


def rows(folder: Path, seconds: float) -> Iterator[Point]:
    """Batches of uint8 images, one in flight."""
    workload = make(folder)
    with served(workload) as server:
        for count in (1, 8, 64, 512, 4096, 8192):
            load = measure(server.process, batch(workload, count), Shape(1, 1), seconds, folder)
            yield {
                "rows": count, "CPU µs a row": load.cpu_us / count,
                "rows/s": load.calls_s * count, "p50 ms": load.p50_us / 1e3,
            }  # fmt: skip


def weights(folder: Path, seconds: float) -> Iterator[Point]:
    """Networks from ten thousand weights to nearly as many as a version may have."""
    for sizes in NETWORKS:
        place = folder / str(sizes[1])
        place.mkdir()
        whole = make(place, Network(sizes))
        pixels, answers = whole.pixels[:SMALL_BATCH], whole.batch_answer[:SMALL_BATCH]
        workload = replace(whole, pixels=pixels, batch_answer=answers)
        alone = numpy_alone(workload, seconds)
        with served(workload) as server:
            one = measure(server.process, server.single, Shape(1, 1), seconds, place)
            many = measure(
                server.process, batch(workload, SMALL_BATCH), Shape(1, 1), seconds, place
            )
            yield {
                "weights": workload.network.parameters,
                "CPU µs a call": one.cpu_us,
                "NumPy alone": alone.row_us,
                "p50 ms": one.p50_us / 1e3,
                f"CPU µs a row of {SMALL_BATCH}": many.cpu_us / SMALL_BATCH,
                "NumPy alone, a row": alone.batch_us / SMALL_BATCH,
                **server.figures(),
            }


def versions(folder: Path, _: float) -> Iterator[Point]:
    """A store that holds ever more versions of one small model."""
    workload = make(folder)
    store, there = Store(workload.store, "mnist"), 1
    for count in (10, 100, 1000, 10_000):
        publish_small(workload.store, count - there)
        there = count
        published = [
            spent_ms(lambda: publish_small(workload.store, 1), time.process_time)
            for _ in range(PUBLISHES)
        ]
        with served(workload) as server, Client(f"127.0.0.1:{server.process.port}") as client:
            listed = [spent_ms(client.versions) for _ in range(3)]
            figures = server.figures()
        yield {
            "versions": count,
            "CPU ms of a publish": median(published),
            "ms of client.versions()": median(listed),
            f"ms of pruning {PUBLISHES}": spent_ms(partial(store.prune, count - 1)),
            **figures,
        }


def models(folder: Path, _: float) -> Iterator[Point]:
    """One server of ever more models of 784-128-10."""
    workload, there = make(folder), 1
    for count in (1, 10, 100, 1000):
        for number in range(there, count):
            publish(Store(workload.store, name(number)), number)
        there = count
        with served(workload, "--workers 1 --model * --default-model mnist") as server:
            time.sleep(SETTLE_SECONDS)
            before = cpu(server.process)
            time.sleep(IDLE_SECONDS)
            idle = (cpu(server.process) - before) / IDLE_SECONDS
            yield {"models": count, "idle, % of a core": idle * 100, **server.figures()}


def workers(folder: Path, seconds: float) -> Iterator[Point]:
    """Processes that share a port, with 64 connections; the generator runs on the same cores."""
    workload = make(folder)
    for count in (1, 2, 4):
        with served(workload, f"--workers {count}") as server:
            load = measure(server.process, server.single, SHAPES[MANY], seconds, folder)
            yield {"workers": count, **of_calls(load), **server.figures()}


CURVES = (
    Curve("connections", "connections", "CPU µs a call", connections),
    Curve("rows of a batch", "rows", "CPU µs a row", rows),
    Curve("size of the network", "weights", "CPU µs a call", weights),
    Curve("versions in the store", "versions", "CPU ms of a publish", versions),
    Curve("models of a server", "models", "MiB", models),
    Curve("workers", "workers", "MiB", workers),
)


@contextmanager
def served(workload: Workload, flags: str = "--workers 1") -> Iterator[Served]:
    """Run a server that ends with the block."""
    server = ours(flags)
    with running(server, workload) as process:
        start_s = wait_until_right(process, server, workload)
        single, _ = server.calls(workload)
        measure(process, single, SHAPES[SHARED], WARM_UP_SECONDS, workload.folder)
        yield Served(process, single, start_s)


def batch(workload: Workload, count: int) -> Call:
    """Return the call of a batch of that many rows."""
    repeats = math.ceil(count / len(workload.pixels))
    pixels = np.tile(workload.pixels, (repeats, 1))[:count]
    return own_contract(replace(workload, pixels=pixels)).batch


def of_calls(load: Load) -> Point:
    """Return the figures of single calls."""
    return {
        "CPU µs a call": load.cpu_us, "calls/s": load.calls_s,
        "p50 ms": load.p50_us / 1e3, "p99 ms": load.p99_us / 1e3,
    }  # fmt: skip


def spent_ms(act: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the milliseconds that an act takes."""
    began = clock()
    act()
    return (clock() - began) * 1e3
