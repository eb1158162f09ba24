"""A million rows: memory stays bounded, and the client is no slower than the server."""

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from mlpserve_client import Client, _batches

ROWS = 1_000_000
SERVER = """
import sys
from mlpserve_client.testing import serve
with serve() as server:
    print(server.target, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server in a process of its own: its memory is not ours."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.communicate("")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[np.uint8]:
    """A million rows in a file, mapped: they are no memory of ours either."""
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    mapped = np.lib.format.open_memmap(path, "w+", np.uint8, (ROWS, 784))
    some = np.random.default_rng(0).integers(0, 256, (10_000, 784), dtype=np.uint8)
    for start in range(0, ROWS, len(some)):
        mapped[start : start + len(some)] = some
    mapped.flush()
    return mapped


def memory() -> float:
    """Megabytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Watch how far memory rises above what it was."""
    enough, before, rise = threading.Event(), memory(), [0.0]

    def watch() -> None:
        while not enough.wait(0.02):
            rise[0] = max(rise[0], memory() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield rise
    finally:
        enough.set()
        thread.join()


def test_a_batch_of_a_million_rows_needs_little_more_memory_than_its_result(
    target: str, rows: npt.NDArray[np.uint8]
) -> None:
    with Client(target) as client, peak_memory() as rise:
        client.predict_batch(rows[:1000])
        started = time.perf_counter()
        answers = client.predict_batch(rows)
        elapsed = time.perf_counter() - started

    result = (answers.labels.nbytes + answers.probabilities.nbytes) / 2**20
    print(f"{ROWS / elapsed:,.0f} rows/s, {rise[0]:.0f} MB above, {result:.0f} MB of it result")
    assert rise[0] < result + 40


def test_a_stream_of_a_million_rows_needs_next_to_no_memory(
    target: str, rows: npt.NDArray[np.uint8]
) -> None:
    with Client(target) as client, peak_memory() as rise:
        started = time.perf_counter()
        count = sum(1 for _ in client.predict_stream(rows))
        elapsed = time.perf_counter() - started

    print(f"{count / elapsed:,.0f} rows/s, {rise[0]:.0f} MB above")
    assert count == ROWS
    assert rise[0] < 40


def test_a_large_batch_is_as_fast_as_requests_of_the_best_size(
    target: str, rows: npt.NDArray[np.uint8]
) -> None:
    some = np.array(rows[:50_000])
    with Client(target) as client, grpc.insecure_channel(target) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        ways: dict[str, Callable[[], object]] = {"client": lambda: client.predict_batch(some)}
        for size in (334, 668, 1337, 2675):
            ways[f"raw, {size} rows a request"] = partial(raw, stub, some, size)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(9):  # in turn, so that all see the same disturbances
            for way, call in ways.items():
                started = time.perf_counter()
                call()
                rates[way].append(len(some) / (time.perf_counter() - started))

    for way, measured in rates.items():
        print(f"{way}: {median(measured):,.0f} rows/s")
    ours, *theirs = map(median, rates.values())
    print(f"ratio to the best: {ours / max(theirs):.2f}")
    assert ours > 0.9 * max(theirs)


def raw(stub: Any, rows: npt.NDArray[np.uint8], size: int) -> None:
    """The same work by hand: as many in flight, nothing checked, nothing gathered."""
    waiting: deque[Any] = deque()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        tensor = prediction_pb2.Tensor(
            dtype=prediction_pb2.DATA_TYPE_UINT8, shape=part.shape, data=part.tobytes()
        )
        request = prediction_pb2.BatchPredictRequest(instances=tensor)
        waiting.append(stub.BatchPredict.future(request, timeout=60))
        if len(waiting) >= _batches._IN_FLIGHT:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()
