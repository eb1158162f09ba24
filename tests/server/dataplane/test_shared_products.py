"""What calls that share a matrix product cost each other."""

import math
from typing import Any

import numpy as np
import pytest

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import CHAMPION, Signature, Store
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import InvalidInput, ManyRows
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.transport.services import SMALL_BYTES
from tests.support.managers import models_of
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.server import Serve
from tests.support.waiting import eventually

CALLS = 256


def request(value: Any) -> bytes:
    data = np.full(12, value, "<f4").tobytes()
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=data)
    return pb.PredictRequest(instance=tensor).SerializeToString()


@pytest.mark.parametrize("wrong", [{7}, {0, 100, CALLS - 1}, set(range(0, CALLS, 2))])
def test_answers_that_are_not_finite_cost_the_calls_beside_them_one_product(
    wrong: set[int], publish: Publish, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(signature=Signature((3, 4), 1.0, ("circle", "square", "star"), "real"))
    manager = ModelManager(Loader(store), CHAMPION)
    manager.poll()
    data = DataPlane(models_of(manager), 16, Inference(max_rows=32))
    model, products = manager.get(), []
    predict = model.predict

    def counting(x: Any) -> Any:
        products.append(len(x))
        return predict(x)

    patch_method(monkeypatch, model, "predict", counting)
    large = np.sign(model.weights[0].w[:, 0]) * np.float32(3e38)
    sent = [request(large if place in wrong else 0.5) for place in range(CALLS)]
    answers = data.predict(sent)

    found = {place for place, answer in enumerate(answers) if isinstance(answer, InvalidInput)}
    assert found == wrong
    assert all(isinstance(answers[place], Result) for place in set(range(CALLS)) - wrong)
    assert products == [CALLS, CALLS - len(wrong)]


@pytest.mark.parametrize("place", [0, 100, CALLS - 1])
def test_one_wrong_value_costs_the_calls_beside_it_a_few_products(
    place: int, publish: Publish, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    manager = ModelManager(Loader(store), CHAMPION)
    manager.poll()
    data = DataPlane(models_of(manager), 16, Inference(max_rows=32))
    products = []
    model = manager.get()
    predict = model.predict

    def counting(x: Any) -> Any:
        products.append(len(x))
        return predict(x)

    patch_method(monkeypatch, model, "predict", counting)
    values = [0.5] * CALLS
    values[place] = math.nan
    answers = data.predict([request(value) for value in values])

    assert isinstance(answers.pop(place), InvalidInput)
    assert all(isinstance(answer, Result) for answer in answers)
    assert len(products) <= math.log2(CALLS)
    assert sum(products) == CALLS - 1


def infer(rows: int) -> bytes:
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(
        name="instances", datatype="UINT8", shape=[rows, 12]
    )
    return inference_pb2.ModelInferRequest(
        model_name="mnist", inputs=[tensor], raw_input_contents=[bytes(12 * rows)]
    ).SerializeToString()


def test_small_requests_of_many_rows_share_no_product(publish: Publish, store: Store) -> None:
    """They would stop all calls beside them, and take memory that nothing bounds."""
    publish()
    manager = ModelManager(Loader(store), CHAMPION)
    manager.poll()
    data = DataPlane(models_of(manager), 1000, Inference(max_rows=1000))
    many, few = infer(1000), infer(16)
    assert len(many) < SMALL_BYTES
    answers = data.infer([many, few, many, infer(17)], may_load=False)
    assert [type(answer) for answer in answers] == [ManyRows, Result, ManyRows, ManyRows]
    assert isinstance(data.infer([many], may_load=False)[0], ManyRows)
    assert isinstance(data.infer([many])[0], ManyRows)


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("rows", [1, 16, 17, 1000])
def test_all_of_them_are_answered_also_by_a_version_that_is_loaded_for_them(
    rows: int, version: str, publish: Publish, serve: Serve
) -> None:
    publish()
    publish(seed=1)
    stubs = serve(standby=0)
    eventually(stubs.serving)
    request = inference_pb2.ModelInferRequest.FromString(infer(rows))
    request.model_version = version
    calls = [stubs.inference.ModelInfer.future(request, timeout=20) for _ in range(30)]
    answers = [call.result() for call in calls]
    assert {len(answer.raw_output_contents[0]) for answer in answers} == {8 * rows}
    assert {answer.model_version for answer in answers} == {version or "2"}
