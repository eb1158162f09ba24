"""A model of real numbers takes any finite float32 over both contracts, and refuses uint8."""

from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, model_pb2, prediction_pb2
from mlpserve_model import CHAMPION, Signature, Store
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import InvalidInput
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from tests.support.managers import models_of
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

INVALID = grpc.StatusCode.INVALID_ARGUMENT
REAL = Signature((3, 4), 1.0, ("circle", "square", "star"), "real")
ROWS = np.random.default_rng(0).normal(0, 1e4, (2, 12)).astype("<f4")


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish(signature=REAL)
    served = serve()
    eventually(served.serving)
    return served


def infer(datatype: str, data: bytes) -> Any:
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(
        name="instances", datatype=datatype, shape=[2, 12]
    )
    return inference_pb2.ModelInferRequest(
        model_name="mnist", inputs=[tensor], raw_input_contents=[data]
    )


def batch(dtype: Any, data: bytes) -> Any:
    tensor = prediction_pb2.Tensor(dtype=dtype, shape=[2, 12], data=data)
    return prediction_pb2.BatchPredictRequest(instances=tensor)


def test_both_contracts_give_the_models_answer(stubs: Stubs, store: Store) -> None:
    expected = store.load(1).predict(ROWS)
    ours = stubs.prediction.BatchPredict(batch(prediction_pb2.DATA_TYPE_FLOAT32, ROWS.tobytes()))
    theirs = stubs.inference.ModelInfer(infer("FP32", ROWS.tobytes()))
    for data in (ours.probabilities.data, theirs.raw_output_contents[1]):
        np.testing.assert_allclose(np.frombuffer(data, "<f4").reshape(2, 3), expected, atol=1e-5)


def test_uint8_is_refused_by_both_with_the_reason(stubs: Stubs, refusal: Refuse) -> None:
    raw = batch(prediction_pb2.DATA_TYPE_UINT8, bytes(24))
    for method, request, field in (
        (stubs.prediction.BatchPredict, raw, "instances.dtype"),
        (stubs.inference.ModelInfer, infer("UINT8", bytes(24)), "inputs[0].dtype"),
    ):
        refused = refusal(method, request)
        assert refused.fields == [field]
        assert "real numbers in the units of its training data" in refused.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_by_row_and_position(
    value: float, stubs: Stubs, refusal: Refuse
) -> None:
    rows = ROWS.copy()
    rows[1, 4] = value
    request = batch(prediction_pb2.DATA_TYPE_FLOAT32, rows.tobytes())
    refused = refusal(stubs.prediction.BatchPredict, request)
    assert refused.fields == ["instances.data"]
    assert f"the value {value} in row 1 at 4, expected finite values" in refused.message


def test_finite_values_whose_answer_is_not_are_refused(
    stubs: Stubs, store: Store, refusal: Refuse
) -> None:
    large = np.sign(store.load(1).weights[0].w[:, 0]) * np.float32(3e38)
    rows = np.stack([ROWS[0], large.astype("<f4")])
    one = prediction_pb2.Tensor(
        dtype=prediction_pb2.DATA_TYPE_FLOAT32, shape=[12], data=rows[1].tobytes()
    )
    several = batch(prediction_pb2.DATA_TYPE_FLOAT32, rows.tobytes())
    explained = explanation_pb2.ExplainRequest(instances=several.instances)
    attributed = infer("FP32", rows.tobytes())
    attributed.outputs.add(name="attributions")
    for method, request, field in (
        (stubs.prediction.Predict, prediction_pb2.PredictRequest(instance=one), "instance"),
        (stubs.prediction.BatchPredict, several, "instances"),
        (stubs.explanation.Explain, explained, "instances"),
        (stubs.inference.ModelInfer, infer("FP32", rows.tobytes()), "inputs[0]"),
        (stubs.inference.ModelInfer, attributed, "inputs[0]"),
    ):
        refused = refusal(method, request)
        assert (refused.code, refused.fields) == (INVALID, [f"{field}.data"])
        assert "values too large: the network's answer is not finite" in refused.message


def test_a_row_that_is_too_large_is_refused_alone(publish: Publish, store: Store) -> None:
    publish(signature=REAL)
    manager = ModelManager(Loader(store), CHAMPION)
    manager.poll()
    data = DataPlane(models_of(manager), 16, Inference(max_rows=32))
    large = np.sign(manager.get().weights[0].w[:, 0]) * np.float32(3e38)
    requests = [
        prediction_pb2.PredictRequest(
            instance=prediction_pb2.Tensor(
                dtype=prediction_pb2.DATA_TYPE_FLOAT32, shape=[12], data=row.astype("<f4").tobytes()
            )
        ).SerializeToString()
        for row in (ROWS[0], large, ROWS[1])
    ]
    first, wrong, last = data.predict(requests)
    assert isinstance(wrong, InvalidInput)
    assert isinstance(first, Result)
    assert isinstance(last, Result)


def test_the_description_says_real_and_no_maximum(stubs: Stubs) -> None:
    described = stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest()).model_version
    assert described.input_kind == model_pb2.INPUT_KIND_REAL
    assert described.input_maximum == 0
