"""Versions that are read from the store on the way keep no other call from being answered."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import StoredModel
from mlpserve_server.transport.methods import COMPUTED_AT_ONCE
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import Serve, Stubs
from tests.support.waiting import eventually

ROW = np.full(12, 0.5, np.float32).tobytes()
TENSOR = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[1, 12], data=ROW)
OLD = 1
FLOOD = 2 * COMPUTED_AT_ONCE


def predict(stubs: Stubs, model: model_pb2.ModelSelector) -> Any:
    one = pb.Tensor(dtype=TENSOR.dtype, shape=[12], data=ROW)
    return stubs.prediction.Predict.future(pb.PredictRequest(instance=one, model=model), timeout=60)


def batch(stubs: Stubs, model: model_pb2.ModelSelector) -> Any:
    request = pb.BatchPredictRequest(instances=TENSOR, model=model)
    return stubs.prediction.BatchPredict.future(request, timeout=60)


def explain(stubs: Stubs, model: model_pb2.ModelSelector) -> Any:
    request = explanation_pb2.ExplainRequest(instances=TENSOR, model=model)
    return stubs.explanation.Explain.future(request, timeout=60)


def infer(stubs: Stubs, model: model_pb2.ModelSelector) -> Any:
    request = inference_pb2.ModelInferRequest(
        model_name="mnist", model_version=str(model.version or ""), raw_input_contents=[ROW]
    )
    request.inputs.add(name="instances", datatype="FP32", shape=[1, 12])
    return stubs.inference.ModelInfer.future(request, timeout=60)


@pytest.fixture
def hanging(
    publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Stubs, threading.Event]]:
    """A server whose store does not give the old version until the event is set."""
    for _ in range(2):
        publish()
    stubs = serve()
    eventually(stubs.serving)
    given, loader = threading.Event(), stubs.manager.loader
    load = loader.load

    def waiting(version: int) -> StoredModel:
        assert given.wait(60)
        return load(version)

    patch_method(monkeypatch, loader, "load", waiting)
    yield stubs, given
    given.set()


@pytest.mark.parametrize("call", [predict, batch, explain, infer])
def test_calls_that_wait_for_the_store_leave_turns_to_others(
    call: Callable[[Stubs, model_pb2.ModelSelector], Any],
    hanging: tuple[Stubs, threading.Event],
) -> None:
    stubs, given = hanging
    waiting = [call(stubs, model_pb2.ModelSelector(version=OLD)) for _ in range(FLOOD)]
    for other in (predict, batch, explain, infer):
        assert other(stubs, model_pb2.ModelSelector()).result()
    assert not any(each.done() for each in waiting)
    given.set()
    assert all(each.result() for each in waiting)
