"""Several models: one that is flooded keeps no call of another from being answered."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Network, Store
from mlpserve_server.dataplane.admission import MIN_QUEUE
from mlpserve_server.dataplane.codec import SingleCodec
from mlpserve_server.dataplane.fair_shares import FairShares
from tests.server.lifecycle.test_models import models_following
from tests.support.publishing import publish_to
from tests.support.server import Refusal, Serve
from tests.support.waiting import eventually

ROW = np.full(12, 0.5, np.float32).tobytes()
ONE = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=ROW)
Input = inference_pb2.ModelInferRequest.InferInputTensor
SLOW, QUICK = "slow", "quick"
FLOOD, CALLS = 64, 10


def request(model: str) -> pb.PredictRequest:
    return pb.PredictRequest(instance=ONE, model=model_pb2.ModelSelector(name=model))


def infer(model: str) -> inference_pb2.ModelInferRequest:
    tensor = Input(name="instances", datatype="FP32", shape=[1, 12])
    return inference_pb2.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[ROW]
    )


@contextmanager
def flooded(address: str, refused: list[grpc.RpcError]) -> Iterator[None]:
    """Calls of the slow model without a pause, from as many connections; their refusals."""
    ending = threading.Event()

    def call() -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            predict = channel.unary_unary(
                "/mlpserve.v1.PredictionService/Predict",
                request_serializer=pb.PredictRequest.SerializeToString,
                response_deserializer=pb.PredictResponse.FromString,
            )
            while not ending.is_set():
                try:
                    assert predict(request(SLOW), timeout=60).model.name == SLOW
                except grpc.RpcError as error:
                    refused.append(error)

    threads = [threading.Thread(target=call) for _ in range(FLOOD)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def test_calls_of_another_model_are_answered_beside_a_flood(store: Store, serve: Serve) -> None:
    root = store.folder.parent
    publish_to(Store(root, SLOW), network=Network((12, 1024, 1024, 3)))
    publish_to(Store(root, QUICK))
    stubs = serve(model=(SLOW, QUICK), max_waiting=8)
    eventually(stubs.serving)
    refused: list[grpc.RpcError] = []
    with flooded(stubs.address, refused):
        eventually(lambda: len(refused) > FLOOD)
        for _ in range(CALLS):
            assert stubs.prediction.Predict(request(QUICK), timeout=60).model.name == QUICK
            assert stubs.inference.ModelInfer(infer(QUICK), timeout=60).model_name == QUICK
    overloaded = [e for e in refused if e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert {Refusal(error).info.reason for error in overloaded} == {"OVERLOADED"}
    # Amid a flood a busy machine may not come to read a request in time, and says so.
    late = [error.details() for error in refused if error not in overloaded]
    assert set(late) <= {"no request in 1 s"}
    assert len(late) < len(overloaded)


@pytest.fixture
def shares(store: Store) -> FairShares:
    return FairShares(models_following(store.folder.parent, "a", "b", "c"), 90, 0.1)


def test_models_that_calls_wait_for_share_the_places(shares: FairShares) -> None:
    assert shares.admits("a", {"a": 89})
    assert not shares.admits("a", {"a": 90})
    assert not shares.admits("a", {"a": 50, "b": 1})
    assert shares.admits("b", {"a": 90})
    assert shares.admits("b", {"a": 90, "b": 44})
    assert not shares.admits("b", {"a": 90, "b": 45})
    assert not shares.admits("c", {"a": 90, "b": 1, "c": 30})


def test_a_slow_model_gets_fewer_places_than_a_quick_one(shares: FairShares) -> None:
    for _ in range(100):
        shares.record("a", 10, 10 * 0.1 / 20)  # 20 calls of it in the time
        shares.record("c", 1, 60.0)
    assert not shares.admits("a", {"a": 10, "b": 1})
    assert shares.admits("b", {"a": 10, "b": 44})
    assert shares.admits("c", {"c": MIN_QUEUE - 1, "a": 10, "b": 50})


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (request("a").SerializeToString(), "a"),
        (request("nothing").SerializeToString(), ""),
        (request("").SerializeToString(), ""),
        (b"\xff", ""),
    ],
)
def test_only_names_of_served_models_have_a_share(
    shares: FairShares, data: bytes, model: str
) -> None:
    assert shares.model_of(SingleCodec().decode, data) == model
