"""What gRPC promises of a call, on both transports."""

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from mlpserve_server.transport.methods import COMPUTED_AT_ONCE
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import Serve, Stubs
from tests.support.waiting import eventually

Future: TypeAlias = Any  # grpc's types give the future of a call no name

Compression = grpc.Compression


def predict_request(value: float) -> pb.PredictRequest:
    data = np.full(12, value, "<f4").tobytes()
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=data)
    return pb.PredictRequest(instance=tensor)


class Gate:
    """Keeps every forward pass waiting until it is opened, and knows what was computed."""

    def __init__(self, stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.values: list[float] = []
        predict = stubs.served.predict

        def waiting(x: NDArray[np.float32]) -> Any:
            self.values += x[:, 0].tolist()
            self.entered.release()
            assert self.opened.wait(20)
            return predict(x)

        patch_method(monkeypatch, stubs.served, "predict", waiting)

    def wait_for(self, passes: int) -> None:
        for _ in range(passes):
            assert self.entered.acquire(timeout=20)


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    return stubs


@pytest.fixture
def gate(stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(stubs, monkeypatch)
    yield gate
    gate.opened.set()


@pytest.fixture
def busy(gate: Gate, stubs: Stubs, transport: str) -> list[Future]:
    """Calls that keep all threads of the server computing until the gate is opened."""
    passes = 1 if transport == "direct" else COMPUTED_AT_ONCE
    calls = []
    for _ in range(passes):
        calls.append(stubs.prediction.Predict.future(predict_request(0)))
        gate.wait_for(1)
    return calls


@pytest.mark.parametrize("compression", [Compression.Gzip, Compression.Deflate])
def test_compressed_requests_are_answered_like_others(
    stubs: Stubs, compression: grpc.Compression
) -> None:
    plain = stubs.prediction.Predict(predict_request(0.5))
    packed = stubs.prediction.Predict(predict_request(0.5), compression=compression)
    assert_allclose(packed.probabilities, plain.probabilities, atol=1e-6)

    rows = np.full((3, 12), 0.5, "<f4")
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=rows.shape, data=rows.tobytes())
    request = pb.BatchPredictRequest(instances=tensor)
    assert list(stubs.prediction.BatchPredict(request, compression=compression).labels) == [
        plain.label
    ] * len(rows)


def test_a_call_whose_deadline_has_passed_is_not_computed(
    gate: Gate, busy: list[Future], stubs: Stubs
) -> None:
    late = [stubs.prediction.Predict.future(predict_request(1), timeout=0.2) for _ in range(20)]
    assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert stubs.serving()  # so all of them have reached the server, however late
    time.sleep(0.2)  # and by its clock, which began then, their time is over
    gate.opened.set()
    assert all(call.result(timeout=20) for call in busy)
    stubs.prediction.Predict(predict_request(0))
    assert 1 not in gate.values


MARKED = (("x-marked", "yes"),)


def marked_calls() -> int:
    """The calls of the standard transport with this metadata that are not known to have ended."""
    contexts = [each for each in gc.get_objects() if isinstance(each, grpc.ServicerContext)]
    return sum(each.is_active() for each in contexts if MARKED[0] in each.invocation_metadata())


def test_a_call_that_was_cancelled_is_not_computed(
    gate: Gate, busy: list[Future], stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as it takes on a busy machine: a cancelled call is known by an event.
    monkeypatch.setattr("mlpserve_server.transport.event_loop._CANCELLED_SECONDS", 1)
    monkeypatch.setattr("mlpserve_server.transport.work_queue._BACKLOG_SECONDS", 20)
    predict = stubs.prediction.Predict.future
    calls = [predict(predict_request(1), metadata=MARKED) for _ in range(20)]
    # One that is answered in between: those before it have reached the server.
    assert stubs.serving()
    for call in calls:
        call.cancel()
    assert stubs.serving()
    eventually(lambda: marked_calls() == 0)
    gate.opened.set()
    assert all(call.result(timeout=20) for call in busy)
    stubs.prediction.Predict(predict_request(0))
    assert 1 not in gate.values


def test_a_message_above_the_limit_is_refused_by_its_size(stubs: Stubs) -> None:
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(stubs.address, unlimited) as channel:
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 12], data=bytes(65 << 20))
        with pytest.raises(grpc.RpcError) as caught:
            PredictionServiceStub(channel).BatchPredict(pb.BatchPredictRequest(instances=tensor))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(64 << 20) in (caught.value.details() or "")


def test_a_method_that_does_not_exist_is_unimplemented(stubs: Stubs) -> None:
    call: Any = stubs.channel.unary_unary("/mlpserve.v1.PredictionService/Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_that_nobody_knows_does_no_harm(stubs: Stubs) -> None:
    metadata = (("x-strange", "value"), ("x-strange-bin", bytes(range(256))))
    answer, call = stubs.prediction.Predict.with_call(predict_request(0), metadata=metadata)
    assert answer.model.version == 1
    assert call.code() == grpc.StatusCode.OK
