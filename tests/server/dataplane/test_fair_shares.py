"""Several models: one that is flooded keeps no call of another from being answered."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Network, Store
from mlpserve_server.dataplane.admission import MIN_QUEUE
from mlpserve_server.dataplane.fair_shares import INFER_NAME, SELECTED_NAME, FairShares, NamePath
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from tests.support.encoding import field
from tests.support.managers import models_following
from tests.support.publishing import publish_to
from tests.support.server import Refusal, Serve
from tests.support.waiting import eventually

ROW = np.full(12, 0.5, np.float32).tobytes()
ONE = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=ROW)
Input = inference_pb2.ModelInferRequest.InferInputTensor
SLOW, QUICK = "slow", "quick"
FLOOD, CALLS = 64, 5


def request(model: str) -> pb.PredictRequest:
    return pb.PredictRequest(instance=ONE, model=model_pb2.ModelSelector(name=model))


def batch(model: str, rows: int = 1) -> pb.BatchPredictRequest:
    tensor = pb.Tensor(dtype=ONE.dtype, shape=[rows, 12], data=ROW * rows)
    return pb.BatchPredictRequest(instances=tensor, model=model_pb2.ModelSelector(name=model))


def explain(model: str) -> explanation_pb2.ExplainRequest:
    chosen = model_pb2.ModelSelector(name=model)
    return explanation_pb2.ExplainRequest(instances=batch(model).instances, model=chosen)


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
            answer = stubs.prediction.BatchPredict(batch(QUICK), timeout=60)
            assert answer.model.name == QUICK
            explained = stubs.explanation.Explain(explain(QUICK), timeout=60)
            assert explained.model.name == QUICK
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
    ("message", "path"),
    [
        (request, SELECTED_NAME),
        (batch, SELECTED_NAME),
        (explain, SELECTED_NAME),
        (infer, INFER_NAME),
    ],
)
def test_the_model_of_every_kind_of_request_is_found_unparsed(
    shares: FairShares, message: Callable[[str], Message], path: NamePath
) -> None:
    named = message("b").SerializeToString()
    assert shares.model_of(path, named) == "b"
    assert shares.model_of(path, message("c").SerializeToString() + named) == "b"
    assert shares.model_of(path, message("nothing").SerializeToString()) == ""
    assert shares.model_of(path, message("").SerializeToString()) == ""
    for end in range(len(named)):  # torn
        assert shares.model_of(path, named[:end]) in ("", "b")
    assert shares.model_of(path, b"\xff" * 20) == ""
    assert shares.model_of(path, bytes(10**6)) == ""


def test_of_many_fields_few_are_walked(shares: FairShares) -> None:
    """The names that come behind a million others are found by nobody in time."""
    selector = pb.PredictRequest(model=model_pb2.ModelSelector(version=1)).SerializeToString()
    assert shares.model_of(SELECTED_NAME, selector * 10**6 + request("b").SerializeToString()) == ""


def test_fields_of_both_levels_are_counted_together(shares: FairShares) -> None:
    selector = field(2, b"\x08\1" * 99)
    assert shares.model_of(SELECTED_NAME, selector * 9 + request("b").SerializeToString()) == "b"
    assert shares.model_of(SELECTED_NAME, selector * 11 + request("b").SerializeToString()) == ""


@pytest.mark.parametrize("before", [b"\x98\x06\x01" * 1000, b"\x83\x01\x84\x01"])
def test_what_is_not_walked_to_its_end_is_not_the_default_models(
    before: bytes, store: Store
) -> None:
    """Or a flood of another model could pass for it: unknown fields, and a group, are skipped."""

    def make(name: str) -> ModelManager:
        return ModelManager(Loader(Store(store.folder.parent, name)), "champion")

    shares = FairShares(Models(["a", "b"], "a", make, list), 90, 0.1)
    named = before + request("b").SerializeToString()
    assert pb.PredictRequest.FromString(named).model.name == "b"
    assert shares.model_of(SELECTED_NAME, named) == ""
    assert (
        shares.model_of(SELECTED_NAME, pb.PredictRequest(instance=ONE).SerializeToString()) == "a"
    )
    assert shares.admits("", {"": MIN_QUEUE - 1, "b": 1})
    assert not shares.admits("", {"": MIN_QUEUE, "b": 1})


def test_the_last_name_counts_also_an_empty_one(shares: FairShares) -> None:
    named = request("b").SerializeToString() + b"\x12\x02\x1a\x00"
    assert pb.PredictRequest.FromString(named).model.name == ""
    assert shares.model_of(SELECTED_NAME, named) == ""
