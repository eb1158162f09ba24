"""Ten times the calls that a server can answer: it answers what it can and refuses the rest."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from tests.support.publishing import publish_to
from tests.support.server import Process, Stubs
from tests.support.timed_callers import p99

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
PREDICT = "/mlpserve.v1.PredictionService/Predict"
TIMES, TIMEOUT = 10, 2.0  # of the capacity; seconds
OK, REFUSED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED

# A model of some twenty milliseconds a row, in a product that other threads may run beside.
SLOW_MODEL = """
import numpy as np
from mlpserve_model import StoredModel

predict, square = StoredModel.predict, np.ones((512, 512), np.float32)

def slow(self, x):
    for _ in range(3 * len(x)):
        square @ square
    return predict(self, x)

StoredModel.predict = slow
"""
# The broken twin: it takes on every call, however many wait.
WITHOUT_ADMISSION = ("--max-waiting", "1000000", "--max-wait-seconds", "3600")

Serve = Callable[..., Stubs]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    store = Store(tmp_path / "models", "mnist")
    publish_to(store)
    with ExitStack() as stack:

        def serve(*arguments: str) -> Stubs:
            base = ["--store", str(store.folder.parent), "--listen", "127.0.0.1:0"]
            base += ["--workers", "1", "--metrics-listen", "127.0.0.1:0"]
            process = Process(*base, *arguments, before=SLOW_MODEL)
            stack.callback(process.process.communicate)
            stack.callback(process.process.kill)
            metrics = process.event("showing metrics")["address"].split("/")[2]
            stubs = Stubs(process.event("listening")["address"], metrics)
            stack.callback(stubs.channel.close)
            process.event("serving")
            return stubs

        yield serve


def capacity(stubs: Stubs, seconds: float) -> float:
    """Calls a second that are answered with four in flight."""
    until = time.monotonic() + seconds

    def call(_: int) -> int:
        answered = 0
        while time.monotonic() < until:
            answered += stubs.prediction.Predict(REQUEST, timeout=30).model.version == 1
        return answered

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(call, range(4))) / seconds


class Flood(NamedTuple):
    """What became of the calls of an overload; times in seconds."""

    offered: int
    seconds: float
    answered: list[float]
    refused: list[float]
    others: list[str]
    health: list[float]

    def of(self, capacity: float) -> float:
        """The share of the capacity that was answered in time."""
        return len(self.answered) / self.seconds / capacity

    def __str__(self) -> str:
        refusals = f"refusals p99 {p99(self.refused):.0f} ms, " if self.refused else ""
        return (
            f"{self.offered} calls in {self.seconds:.1f} s, {len(self.answered)} answered, "
            f"{len(self.refused)} refused, {len(self.others)} otherwise; {refusals}answers p99 "
            f"{p99(self.answered or [0.0]):.0f} ms, {len(self.health)} health checks p99 "
            f"{p99(self.health):.0f} ms"
        )


def flood(stubs: Stubs, rate: float, seconds: float) -> Flood:
    """Send calls at a rate, whatever becomes of them, beside health checks and a scrape."""
    found = Flood(round(rate * seconds), seconds, [], [], [], [])
    options = [("grpc.use_local_subchannel_pool", 1)]
    data, left = REQUEST.SerializeToString(), threading.Semaphore(0)
    with ExitStack() as stack:
        calls: list[Any] = [
            stack.enter_context(grpc.insecure_channel(stubs.address, options)).unary_unary(PREDICT)
            for _ in range(16)
        ]

        def send(number: int) -> None:
            began = time.monotonic()

            def note(call: Any) -> None:
                took, code = time.monotonic() - began, call.code()
                if code == OK:
                    found.answered.append(took)
                elif code == REFUSED:
                    found.refused.append(took)
                else:
                    found.others.append(code.name)
                left.release()

            calls[number % 16].future(data, timeout=TIMEOUT).add_done_callback(note)

        started = time.monotonic()
        for number in range(found.offered):
            time.sleep(max(started + number / rate - time.monotonic(), 0))
            send(number)
            if number % max(round(rate / 10), 1) == 0:
                began = time.monotonic()
                assert stubs.serving()
                found.health.append(time.monotonic() - began)
        spent = time.monotonic() - started
        assert stubs.scrape()("mlpserve_calls_total") > 0
        for _ in range(found.offered):
            assert left.acquire(timeout=60)
    return found._replace(seconds=spent)


SECONDS = [3, pytest.param(20, marks=pytest.mark.soak)]


@pytest.mark.parametrize("seconds", SECONDS)
def test_under_ten_times_its_capacity_a_server_answers_what_it_can(
    seconds: float, serve: Serve
) -> None:
    stubs = serve()
    can = capacity(stubs, 2)
    found = flood(stubs, can * TIMES, seconds)
    print(f"\ncapacity {can:.0f} calls/s; {found}; {found.of(can):.0%} of the capacity answered")
    # None on a machine with nothing else to do, 11 % on one of thirty times the work it can do.
    assert len(found.others) < 0.25 * found.offered
    assert len(found.refused) > found.offered / 2
    assert np.median(found.refused) < np.median(found.answered)
    assert found.answered
    for _ in range(20):  # it recovers
        assert stubs.prediction.Predict(REQUEST, timeout=TIMEOUT).model.version == 1


def test_without_admission_most_calls_wait_in_vain(serve: Serve) -> None:
    stubs = serve(*WITHOUT_ADMISSION)
    can = capacity(stubs, 2)
    found = flood(stubs, can * TIMES, 4)
    print(f"\nwithout admission: {found}; {found.of(can):.0%} of the capacity answered in time")
    assert found.refused == []
    assert set(found.others) == {"DEADLINE_EXCEEDED"}
    assert len(found.others) > found.offered / 2
