"""What REST tells about server and models, and its OpenAPI description."""

from typing import Any

import pytest

from mlpserve_client.testing import ModelServer
from tests.web.conftest import StartWeb, Web


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_is_described(web: Web, path: str) -> None:
    answer = web.call(path)

    assert answer.status == 200
    assert answer.json["name"] == "mlpserve"
    assert answer.json["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("path", ["/v2/models/mnist", "/v2/models/mnist/versions/1"])
def test_the_model_is_described(web: Web, path: str) -> None:
    assert web.call(path).json == {
        "name": "mnist",
        "versions": ["1"],
        "platform": "mlpserve_npz",
        "inputs": [{"name": "instances", "datatype": "FP32", "shape": [-1, 3, 4]}],
        "outputs": [
            {"name": "labels", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


def test_health_and_readiness(web: Web) -> None:
    assert web.call("/v2/health/live").json == {"live": True}
    assert web.call("/v2/health/ready").json == {"ready": True}
    assert web.call("/v2/models/mnist/ready").json == {"name": "mnist", "ready": True}
    assert web.call("/v2/models/mnist/versions/champion/ready").status == 200
    assert web.call("/v2/models/letters/ready").status == 404
    assert web.call("/v2/models/mnist/versions/9/ready").status == 404


def test_a_model_is_ready_whichever_the_page_shows(
    server: ModelServer, start_web: StartWeb
) -> None:
    web = start_web("--target", server.target, "--model", "letters")
    assert web.call("/v2/models/mnist/ready").status == 200
    assert web.call("/v2/models/letters/ready").status == 404


def test_without_a_server_it_says_so(start_web: StartWeb) -> None:
    web = start_web("--target", "127.0.0.1:1", "--timeout", "0.5")

    assert web.call("/v2").status == 200
    answer = web.call("/v2/health/live")
    assert (answer.status, list(answer.json)) == (503, ["error"])


def test_every_route_is_in_the_openapi_document(web: Web) -> None:
    document: Any = web.call("/openapi.json").json

    assert document["openapi"].startswith("3.1")
    operations = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "post")
    }
    model = "/v2/models/{model}"
    assert operations == {
        ("/v2", "get"),
        ("/v2/health/live", "get"),
        ("/v2/health/ready", "get"),
        *(
            (f"{path}{end}", method)
            for path in (model, f"{model}/versions/{{version}}")
            for end, method in (("", "get"), ("/ready", "get"), ("/infer", "post"))
        ),
    }
