"""What calls that share a matrix product cost each other."""

import math
from typing import Any

import numpy as np
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import CHAMPION, Store
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import InvalidInput
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from tests.support.managers import models_of
from tests.support.patching import patch_method
from tests.support.publishing import Publish

CALLS = 256


def request(value: float) -> bytes:
    data = np.full(12, value, "<f4").tobytes()
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=data)
    return pb.PredictRequest(instance=tensor).SerializeToString()


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
