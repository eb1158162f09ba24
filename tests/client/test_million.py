"""A million rows: memory stays bounded."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_client import Client

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
