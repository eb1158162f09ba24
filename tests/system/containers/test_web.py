"""The page and REST, beside the servers of the compose file."""

import json
import time
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.support.containers import Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


def get(stack: Stack, path: str, body: Any = None) -> bytes:
    address = stack.compose("port", "web", "8080").strip()
    request = Request(f"http://{address}{path}", body and json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=20) as answer:
        content: bytes = answer.read()
    return content


def test_up_brings_a_page_that_knows_the_model_its_reports_and_its_traffic(stack: Stack) -> None:
    assert b"<html" in get(stack, "/")

    told = json.loads(get(stack, "/api/models"))
    (served,) = [each for each in told["versions"] if "champion" in each["aliases"]]

    assert served["version"] == stack.served()
    assert b"<html" in get(stack, f"/{served['report']}")
    assert told["traffic"]
    assert json.loads(get(stack, "/api/traffic"))["calls"] > 0


def test_rest_gives_the_answers_of_the_servers(stack: Stack) -> None:
    digits = load_digits()
    rows = digits.images[:20].astype(np.uint8)
    tensor = {"name": "instances", "datatype": "UINT8", "shape": rows.shape}
    body = {"inputs": [tensor | {"data": rows.ravel().tolist()}]}

    answer = json.loads(get(stack, "/v2/models/mnist/infer", body))

    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    assert np.mean(outputs["labels"] == digits.target[:20]) >= 0.9


def test_it_costs_no_layer_beside_the_clients_image(stack: Stack, images: dict[str, str]) -> None:
    layers = [
        json.loads(stack.docker("image", "inspect", images[target]))[0]["RootFS"]["Layers"]
        for target in ("web", "client")
    ]
    assert layers[0] == layers[1]

    started = time.monotonic()
    stack.compose("up", "--wait", "--no-deps", "--force-recreate", "web")

    print(f"\ncreated, started and healthy in {time.monotonic() - started:.1f} s")
    assert stack.inspect("web")["State"]["Health"]["Status"] == "healthy"
