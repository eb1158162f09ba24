"""Several workers show their metrics as one server: the sums are right, whatever becomes of one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.support.publishing import Publish
from tests.support.server import Page, Process, Run
from tests.support.waiting import eventually

SINGLE = pb.PredictRequest(instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12)))
BATCH = pb.BatchPredictRequest(
    instances=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[700, 12], data=bytes(700 * 12))
)
WRONG = pb.PredictRequest()


class Callers:
    """Eight threads with two connections each, which call until they are told to stop.

    The kernel chooses a worker for each connection, at random: all choose the same one in one of
    32,768 runs.
    """

    def __init__(self, address: str) -> None:
        self.singles = self.batches = self.refused = 0
        self._address = address
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(8)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with ExitStack() as stack:
            channels = [grpc.insecure_channel(self._address, options) for _ in range(2)]
            stubs = cycle(PredictionServiceStub(stack.enter_context(c)) for c in channels)
            while not self._stop.is_set():
                stub = next(stubs)
                stub.Predict(SINGLE, timeout=30)
                stub.BatchPredict(BATCH, timeout=30)
                with pytest.raises(grpc.RpcError):
                    stub.Predict(WRONG, timeout=30)
                with self._lock:
                    self.singles += 1
                    self.batches += 1
                    self.refused += 1


class Watch:
    """Scrapes again and again, and fails when anything that is counted goes back."""

    COUNTED = ("_total", "_bucket", "_count", "_sum")

    def __init__(self, address: str, scrape: type[Page]) -> None:
        self._address, self._page = address, scrape
        self._before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def scrape(self) -> Page:
        page = self._page(self._address)
        for key, value in self._before.items():
            assert page.series[key] >= value, key
        self._before = {k: v for k, v in page.series.items() if k[0].endswith(self.COUNTED)}
        return page


class Served(NamedTuple):
    """Two workers: their process, where they listen, and a watch over their metrics."""

    server: Process
    address: str
    watch: Watch


@pytest.fixture
def served(publish: Publish, run: Run, scrape: type[Page]) -> Served:
    publish()
    server = run("--workers", "2", "--drain-seconds", "0", "--metrics-listen", "127.0.0.1:0")
    metrics = server.event("showing metrics")["address"]
    address = server.event("listening")["address"]
    server.event("serving")
    server.event("serving")
    return Served(server, address, Watch(metrics, scrape))


@pytest.fixture
def call() -> Iterator[Callable[[str], Callers]]:
    with ExitStack() as stack:

        def call(address: str) -> Callers:
            callers = Callers(address)
            stack.callback(callers.stop)
            return callers

        yield call


def workers(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in children.split()]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_under_load_the_sums_over_workers_are_right_and_never_go_back(
    served: Served, call: Callable[[str], Callers]
) -> None:
    server, address, watch = served
    before = {worker: cpu_seconds(worker) for worker in workers(server.process.pid)}
    callers = call(address)
    while callers.singles < 200:
        watch.scrape()
    callers.stop()
    calls = callers.singles + callers.batches + callers.refused
    eventually(lambda: watch.scrape()("mlpserve_calls_total") == calls)
    page = watch.scrape()
    assert page("mlpserve_calls_total", method="Predict", code="OK") == callers.singles
    assert page("mlpserve_calls_total", method="BatchPredict", code="OK") == callers.batches
    refused = page("mlpserve_calls_total", method="Predict", code="INVALID_ARGUMENT")
    assert refused == callers.refused
    assert page("mlpserve_call_seconds_count") == calls
    rows = callers.singles + 700 * callers.batches
    assert page("mlpserve_rows_total") == page("mlpserve_predictions_total", version="1") == rows
    assert page("mlpserve_confidence_count") == page("mlpserve_product_rows_sum") == rows
    assert page("mlpserve_model_loads_total", result="loaded") == 2
    eventually(lambda: watch.scrape()("mlpserve_workers_ready") == 2)
    shares = [round(cpu_seconds(w) - before[w], 2) for w in before]
    print(f"{calls} calls, {rows} rows, CPU seconds of the workers {shares}")
    assert len(shares) == 2
    assert min(shares) > 0.02


def test_a_worker_that_dies_takes_nothing_with_it_that_was_counted(
    served: Served, call: Callable[[str], Callers]
) -> None:
    server, address, watch = served
    callers = call(address)
    while callers.singles < 50:
        watch.scrape()
    callers.stop()
    calls = 3 * callers.singles
    eventually(lambda: watch.scrape()("mlpserve_calls_total") == calls)
    eventually(lambda: watch.scrape()("mlpserve_workers_ready") == 2)
    memory = watch.scrape()("mlpserve_resident_memory_bytes")
    os.kill(workers(server.process.pid)[0], signal.SIGKILL)
    server.event("a worker ended")
    server.event("serving")
    eventually(lambda: watch.scrape()("mlpserve_workers_ready") == 2)
    page = watch.scrape()
    assert page("mlpserve_calls_total") == calls
    assert page("mlpserve_worker_ends_total") == 1
    assert page("mlpserve_model_loads_total", result="loaded") == 3
    assert page("mlpserve_resident_memory_bytes") < 1.4 * memory  # of two, not of three
    callers = call(address)
    while callers.singles < 50:
        watch.scrape()
    callers.stop()
    eventually(lambda: watch.scrape()("mlpserve_calls_total") == calls + 3 * callers.singles)
    assert server.end() == 0
