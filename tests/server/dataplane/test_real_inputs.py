"""A model of real numbers takes any finite float32 over both contracts, and refuses uint8."""

from typing import Any

import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Signature, Store
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

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


def test_the_description_says_real_and_no_maximum(stubs: Stubs) -> None:
    described = stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest()).model_version
    assert described.input_kind == model_pb2.INPUT_KIND_REAL
    assert described.input_maximum == 0
