"""What callers notice of a neighbour that opens, resets and never reads, and what stays of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from tests.support.publishing import publish_to
from tests.support.raw_http2 import RawConnection, frame, rapid_reset, send_and_wait
from tests.support.server import Process
from tests.support.timed_callers import TimedCallers, descriptors, p99, resident
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

PREDICT = "/mlpserve.v1.PredictionService/Predict"
BATCH_PREDICT = "/mlpserve.v1.PredictionService/BatchPredict"
IMAGES = np.random.default_rng(1).random((16, 3, 4), dtype=np.float32)
BATCH = pb.BatchPredictRequest(
    instances=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[4096, 12], data=bytes(4096 * 12))
).SerializeToString()
MEBIBYTE = 2**20
ALONE = 3.0  # seconds

# The broken twin: what bounds the calls of one connection is gone.
WITHOUT_BOUNDS = """
from mlpserve_server.transport import services

bounds = ("overload_protection", "max_concurrent_streams", "max_deallocating_streams")
services._OPTIONS = [each for each in services._OPTIONS if not each[0].endswith(bounds)]
services._OPTIONS.append(("grpc.http.overload_protection", 0))
"""

Serve = Callable[[str], tuple[int, str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server of version 1; gives its process and its address."""
    store = Store(tmp_path / "models", "mnist")
    publish_to(store)
    with ExitStack() as stack:

        def serve(before: str) -> tuple[int, str]:
            arguments = ["--store", str(store.folder.parent), "--listen", "127.0.0.1:0"]
            process = Process(*arguments, "--workers", "1", before=before)
            stack.callback(process.process.communicate)
            stack.callback(process.process.kill)
            address = process.event("listening")["address"]
            process.event("serving")
            return process.process.pid, address

        yield serve


def half_open(address: str, connections: int) -> None:
    """Open connections with one call each whose request never comes, and hold them."""
    with ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(RawConnection(address)).open(PREDICT)
        time.sleep(1)


def resets(address: str, calls: int) -> None:
    """Open and reset calls as fast as they can be sent, on two connections in turn."""
    frames = rapid_reset(PREDICT, calls)
    for _ in range(2):
        with RawConnection(address) as connection:
            connection.receive(1)
            send_and_wait(connection, frames)
    time.sleep(1)


def never_reads(address: str, calls: int) -> None:
    """Send batches whose answers are never read, a hundred on each connection."""
    with ExitStack() as stack:
        for _ in range(max(calls // 100, 1)):
            connection = stack.enter_context(RawConnection(address, window=0))
            connection.receive(1)
            for _ in range(min(calls, 99)):
                connection.send(connection.open(BATCH_PREDICT), frame(BATCH), end=True, seconds=1)
        time.sleep(1)


KINDS = [
    (half_open, 200), pytest.param(half_open, 1000, marks=pytest.mark.soak),
    (resets, 5000), pytest.param(resets, 20_000, marks=pytest.mark.soak),
    (never_reads, 99), pytest.param(never_reads, 1000, marks=pytest.mark.soak),
]  # fmt: skip


class Found:
    """What a neighbour of the misbehaving caller has seen, alone and beside it."""

    def __init__(self, address: str, act: Callable[[str, int], None], count: int) -> None:
        with TimedCallers(address, IMAGES, threads=2, pause=0.005) as callers:
            time.sleep(ALONE)
            began = time.monotonic()
            act(address, count)
            ended = time.monotonic()
            callers.wait_for_more(50)
        self.failures = callers.failures
        self.seconds = ended - began
        self.alone = [a.seconds for a in callers.answers if a.began + a.seconds < began]
        self.beside = [
            a.seconds for a in callers.answers if a.began + a.seconds >= began and a.began <= ended
        ]

    def __str__(self) -> str:
        return (
            f"p99 of {len(self.alone)} calls alone {p99(self.alone):.1f} ms, of "
            f"{len(self.beside)} beside it {p99(self.beside):.1f} ms, at most "
            f"{max(self.beside) * 1000:.0f} ms; {len(self.failures)} failed"
        )


@pytest.mark.parametrize(("act", "count"), KINDS)
def test_a_neighbour_is_answered_and_nothing_stays(
    act: Callable[[str, int], None], count: int, serve: Serve
) -> None:
    pid, address = serve("")
    act(address, count // 10)  # what is allocated once is there from here on
    before = descriptors(pid)
    memory = resident(pid)
    found = Found(address, act, count)
    wait_for(lambda: descriptors(pid) <= before, 60)
    grown = (resident(pid) - memory) / MEBIBYTE
    print(f"\n{count} {act.__name__}: {found}; memory {grown:+.1f} MiB, descriptors as before")
    assert found.failures == []
    assert found.beside
    assert grown < 64


def test_without_bounds_resets_stall_a_neighbour_for_longer(serve: Serve) -> None:
    _, bounded = serve("")
    with_bounds = Found(bounded, resets, 20_000)
    _, unbounded = serve(WITHOUT_BOUNDS)
    without = Found(unbounded, resets, 20_000)
    print(f"\nwith bounds: {with_bounds}\nwithout: {without}")
    assert max(without.beside) > max(with_bounds.beside)
