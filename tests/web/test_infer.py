"""Infer over REST: the answers of the client library, in the protocol's JSON and binary forms."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client
from mlpserve_client.testing import ModelServer
from tests.web.conftest import SHAPE, Web

PATH = "/v2/models/mnist/infer"
X = np.random.default_rng(1).random((5, *SHAPE), np.float32)
PIXELS = np.random.default_rng(2).integers(0, 256, (5, *SHAPE), np.uint8)


def request(x: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    tensor = {"name": "instances", "datatype": datatype, "shape": list(x.shape), "data": x.tolist()}
    return {"inputs": [tensor], **more}


def binary(x: Any, datatype: str = "FP32", **more: Any) -> tuple[bytes, str]:
    """A body with its values behind the JSON, and the length of the JSON."""
    tensor = {
        "name": "instances",
        "datatype": datatype,
        "shape": list(x.shape),
        "parameters": {"binary_data_size": x.nbytes},
    }
    header = json.dumps({"inputs": [tensor], **more}).encode()
    return header + x.tobytes(), str(len(header))


@pytest.fixture(scope="module")
def expected(server: ModelServer) -> Any:
    """The probabilities that the client library gets."""
    with Client(server.target) as client:
        return {
            "FP32": client.predict_batch(X).probabilities,
            "UINT8": client.predict_batch(PIXELS).probabilities,
        }


@pytest.mark.parametrize(("datatype", "x"), [("FP32", X), ("UINT8", PIXELS)])
def test_the_answer_is_that_of_the_client_library(
    web: Web, expected: Any, datatype: str, x: Any
) -> None:
    answer = web.call(PATH, request(x, datatype, id="mine"))

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    labels, probabilities = answer.json["outputs"]
    assert (answer.json["id"], answer.json["model_name"]) == ("mine", "mnist")
    assert answer.json["model_version"] == "1"
    assert (labels["datatype"], labels["shape"]) == ("INT64", [5])
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [5, 3])
    got = np.float32(probabilities["data"]).reshape(5, 3)
    np.testing.assert_array_equal(got, expected[datatype])
    assert labels["data"] == expected[datatype].argmax(axis=1).tolist()


@pytest.mark.parametrize(("datatype", "x"), [("FP32", X), ("UINT8", PIXELS)])
def test_values_go_in_and_out_as_binary_data(
    web: Web, expected: Any, datatype: str, x: Any
) -> None:
    body, length = binary(x, datatype, parameters={"binary_data_output": True})

    answer = web.call(PATH, body, Inference_Header_Content_Length=length)

    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    labels, probabilities = json.loads(answer.body[:end])["outputs"]
    size = labels["parameters"]["binary_data_size"]
    data = answer.body[end:]
    assert struct.unpack("<5q", data[:size]) == tuple(expected[datatype].argmax(axis=1))
    assert probabilities["parameters"]["binary_data_size"] == len(data) - size
    got = np.frombuffer(data[size:], "<f4").reshape(5, 3)
    np.testing.assert_array_equal(got, expected[datatype])


def test_each_output_chooses_its_form(web: Web, expected: Any) -> None:
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "labels"}]

    answer = web.call(PATH, request(X, outputs=outputs))

    end = int(answer.headers["inference-header-content-length"])
    probabilities, labels = json.loads(answer.body[:end])["outputs"]
    assert "data" not in probabilities
    assert labels["data"] == expected["FP32"].argmax(axis=1).tolist()
    assert answer.body[end:] == expected["FP32"].tobytes()


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 12), (1, 3, 4)])
def test_one_instance_comes_with_and_without_the_dimension_of_the_batch(
    web: Web, expected: Any, shape: tuple[int, ...]
) -> None:
    answer = web.call(PATH, request(X[0].reshape(shape)))

    probabilities = answer.json["outputs"][1]
    assert probabilities["shape"] == [1, 3]
    np.testing.assert_allclose(probabilities["data"], expected["FP32"][0], rtol=1e-6)


def test_flat_data_are_taken_by_their_shape(web: Web, expected: Any) -> None:
    flat = request(X)
    flat["inputs"][0]["data"] = X.ravel().tolist()

    assert web.call(PATH, flat).json["outputs"][1]["shape"] == [5, 3]


@pytest.mark.parametrize("version", ["1", "champion"])
def test_the_path_selects_a_version_by_number_or_alias(web: Web, version: str) -> None:
    answer = web.call(f"/v2/models/mnist/versions/{version}/infer", request(X))

    assert (answer.status, answer.json["model_version"]) == (200, "1")


@pytest.mark.parametrize("binary", [True, False])
def test_attributions_come_when_they_are_asked_for(
    web: Web, server: ModelServer, binary: bool
) -> None:
    parameters = {"binary_data": binary}
    outputs = [{"name": "attributions", "parameters": parameters}, {"name": "labels"}]

    answer = web.call(PATH, request(X, outputs=outputs))

    length = answer.headers.get("inference-header-content-length")
    end = int(length) if length else None
    why, labels = json.loads(answer.body[:end])["outputs"]
    assert (why["name"], why["datatype"], why["shape"]) == ("attributions", "FP32", [5, 3, 4])
    values = np.frombuffer(answer.body[end:], "<f4") if binary else np.array(why["data"])
    with Client(server.target) as client:
        found = [client.explain(row) for row in X]
    assert labels["data"] == [one.label for one in found]
    expected = [one.attributions for one in found]
    np.testing.assert_allclose(values.reshape(5, 3, 4), expected, atol=1e-6)


def test_more_attributions_than_a_request_may_have_are_refused(web: Web) -> None:
    many = np.zeros((257, 3, 4), np.float32)

    answer = web.call(PATH, request(many, outputs=[{"name": "attributions"}]))

    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert "at most 256" in answer.json["error"]


def test_hints_of_other_servers_are_ignored(web: Web) -> None:
    hinted = request(X, parameters={"priority": 1})
    hinted["inputs"][0]["parameters"] = {"content_type": "np"}

    assert web.call(PATH, hinted).status == 200


def changed(**fields: Any) -> dict[str, Any]:
    whole = request(X)
    whole["inputs"][0] |= fields
    return whole


SHORT, LENGTH = binary(X)
# what is wrong: body, header, code, part of the message
WRONG: dict[str, tuple[Any, str | None, int, str]] = {
    "no JSON": (b"{", None, 400, "not JSON"),
    "no object": (b"[]", None, 400, "not a JSON object"),
    "bytes that are not UTF-8": (b'{"id": "\xff"}', None, 400, "not JSON"),
    "NaN, which JSON does not have": (b'{"inputs": [NaN]}', None, 400, "not JSON"),
    "no input": ({"inputs": []}, None, 400, "0 inputs"),
    "inputs that are none": ({"inputs": "all"}, None, 400, "expected a JSON array"),
    "an input that is a number": ({"inputs": [3]}, None, 400, "expected one object"),
    "another input": (changed(name="pixels"), None, 400, "'instances'"),
    "another datatype": (changed(datatype="FP64"), None, 400, "FP32 or UINT8"),
    "a datatype that is a list": (changed(datatype=["FP32"]), None, 400, "FP32 or UINT8"),
    "no shape": (changed(shape=None), None, 400, "shape null"),
    "a negative size": (changed(shape=[-1, 12]), None, 400, "shape [-1,12]"),
    "a size that is true": (changed(shape=[True, 12]), None, 400, "shape [true,12]"),
    "too many dimensions": (changed(shape=[1] * 9), None, 400, "1 to 8 sizes"),
    "data of another shape": (changed(shape=[5, 11]), None, 400, "expected [5, 11]"),
    "ragged data": (changed(data=[[1], [2, 3]]), None, 400, "rectangular"),
    "data that are words": (changed(data=["a"] * 60, shape=[60]), None, 400, "not numbers"),
    "data that are an object": (changed(data=[[1], {"a": 1}]), None, 400, "rectangular"),
    "data that are null": (changed(data=[None] * 60, shape=[60]), None, 400, "not numbers"),
    "data of many levels": (
        b'{"inputs": [{"name": "instances", "datatype": "FP32", "shape": [1], "data": '
        + b"[" * 500 + b"]" * 500 + b"}]}", None, 400, "not numbers",
    ),
    "a number beyond all": (changed(data=[10**400], shape=[1]), None, 400, "not JSON"),
    "a value that is too large": (changed(data=(X + 1).tolist()), None, 400, "0 to 1"),
    "a pixel that is too large": (
        request(PIXELS.astype(int) + 200, "UINT8"), None, 400, "0 to 255",
    ),
    "a shape of another model": (request(X.reshape(5, 2, 6)[:, :, :5]), None, 400, "[5, 2, 5]"),
    "an empty batch": (changed(shape=[0, 3, 4], data=[]), None, 400, "at least 1"),
    "an output that is not there": (request(X, outputs=[{"name": "logits"}]), None, 400, "labels"),
    "an output twice": (request(X, outputs=[{"name": "labels"}] * 2), None, 400, "outputs[1]"),
    "an output that is a name alone": (request(X, outputs=["labels"]), None, 400, "outputs[0]"),
    "an output that is a number": (request(X, outputs=[1]), None, 400, "outputs[0]"),
    "shared memory": (
        changed(parameters={"shared_memory_region": "r"}), None, 400, "shared_memory_region",
    ),
    "an id that is a number": (request(X, id=1), None, 400, "expected a JSON string"),
    "a header longer than the body": (SHORT, "100000", 400, "Inference-Header-Content-Length"),
    "values without JSON": (X.tobytes(), "0", 400, "Inference-Header-Content-Length is 0"),
    "a header that is a word": (SHORT, "many", 400, "expected a number of bytes"),
    "binary data that are cut": (SHORT[:-1], LENGTH, 400, "239 bytes"),
    "binary data without the header": (
        binary(X)[0][: int(LENGTH)], None, 400, "without the header",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_with_what_was_expected(web: Web, name: str) -> None:
    body, length, status, message = WRONG[name]
    headers = {"Inference_Header_Content_Length": length} if length else {}

    answer = web.call(PATH, body, **headers)

    assert (answer.status, list(answer.json)) == (status, ["error"])
    assert message in answer.json["error"]
    assert "Traceback" not in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/letters/infer", 404),
        ("/v2/models/mnist/versions/7/infer", 404),
        ("/v2/models/mnist/versions/challenger/infer", 404),
        ("/v2/models/mnist/versions/0/infer", 400),
        ("/v2/elsewhere", 404),
    ],
)
def test_what_is_not_there_is_not_found(web: Web, path: str, status: int) -> None:
    answer = web.call(path, request(X))

    assert (answer.status, list(answer.json)) == (status, ["error"])


def test_another_method_is_refused(web: Web) -> None:
    assert web.call(PATH).status == 405
    assert web.call("/v2", b"{}").status == 405
