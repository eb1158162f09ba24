"""Triton's own client, unmodified, in a process and an environment of its own."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor

from mlpserve.open_inference import inference_pb2, model_config_pb2
from mlpserve_model import Store
from mlpserve_server.dataplane.oip_catalog import UNSUPPORTED
from tests.support.publishing import Publish
from tests.support.server import Serve
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-triton" / "bin" / "python"
USER = Path(__file__).with_name("triton_user.py")

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="Triton's client is not installed: make test-triton"
)


def heard(part: str, address: str) -> Any:
    """What the client hears, by a part of its script."""
    command = [str(PYTHON), str(USER), address, part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def address(publish: Publish, serve: Serve) -> str:
    """Of a server with two versions, the first of them served."""
    publish(seed=0)
    publish(seed=1, promote=False)
    stubs = serve()
    eventually(stubs.serving)
    return str(stubs.address)


@pytest.mark.parametrize("form", ["blocking", "callbacks", "asynchronous"])
def test_it_gets_the_answers_of_the_stored_weights(store: Store, address: str, form: str) -> None:
    x = np.random.default_rng(4).random((5, 12), np.float32)
    pixels = np.random.default_rng(5).integers(0, 17, (5, 12), np.uint8)
    many = np.random.default_rng(6).random((1500, 12), np.float32)
    calls = {
        "floats": (1, x),
        "pixels": (1, (pixels / 16).astype(np.float32)),
        "one": (1, x[:1]),
        "many": (1, many),
        "labels": (1, x),
        "version": (2, x),
        "alias": (1, x),
    }

    answers = heard(form, address)

    assert list(answers) == list(calls)
    for name, (version, rows) in calls.items():
        answer, arrays = answers[name], answers[name]["arrays"]
        probabilities = store.load(version).predict(rows)
        assert (answer["model"], answer["version"]) == ("mnist", str(version))
        assert answer["id"] == ("7" if name == "one" else "")
        assert arrays["labels"] == probabilities.argmax(axis=1).tolist()
        if name == "labels":
            assert answer["dtypes"] == {"labels": "int64"}
        else:
            assert answer["dtypes"] == {"labels": "int64", "probabilities": "float32"}
            np.testing.assert_allclose(arrays["probabilities"], probabilities, atol=1e-6)


def test_it_is_told_what_server_and_model_are(address: str) -> None:
    facts = {
        "live": True,
        "ready": True,
        "model ready": True,
        "other ready": False,
        "server": {"name": "mlpserve", "version": metadata.version("mlpserve")},
        "model": {
            "name": "mnist",
            "versions": ["1"],
            "platform": "mlpserve_npz",
            "inputs": [{"name": "instances", "datatype": "FP32", "shape": ["-1", "3", "4"]}],
            "outputs": [
                {"name": "labels", "datatype": "INT64", "shape": ["-1"]},
                {"name": "probabilities", "datatype": "FP32", "shape": ["-1", "3"]},
            ],
        },
        "config": {
            "config": {
                "name": "mnist",
                "platform": "mlpserve_npz",
                "backend": "mlpserve",
                "max_batch_size": 8192,
                "input": [{"name": "instances", "data_type": "TYPE_FP32", "dims": ["3", "4"]}],
                "output": [
                    {"name": "labels", "data_type": "TYPE_INT64", "dims": ["1"]},
                    {"name": "probabilities", "data_type": "TYPE_FP32", "dims": ["3"]},
                ],
            }
        },
        "index": {"models": [{"name": "mnist", "version": "1", "state": "READY"}]},
    }
    assert heard("facts", address) == [facts, facts]


def test_it_is_told_what_was_wrong(address: str) -> None:
    refusals = heard("refusals", address)
    for case, (code, parts) in {
        "model": ("NOT_FOUND", ["cifar", "mnist"]),
        "version": ("NOT_FOUND", ["99"]),
        "shape": ("INVALID_ARGUMENT", ["[5, 2, 4]", "[n, 3, 4]"]),
        "range": ("INVALID_ARGUMENT", ["row 0", "from 0 to 1"]),
        "datatype": ("INVALID_ARGUMENT", ["FP64", "FP32 or UINT8"]),
        "input": ("INVALID_ARGUMENT", ["images", "instances"]),
        "output": ("INVALID_ARGUMENT", ["logits", "labels, probabilities"]),
        "classification": ("INVALID_ARGUMENT", ["classification"]),
    }.items():
        status, message = refusals.pop(case)
        assert status == f"StatusCode.{code}", case
        assert all(part in message for part in parts), message
    assert not refusals


def test_the_rest_of_its_methods_say_what_there_is_instead(address: str) -> None:
    answers = heard("extensions", address)
    assert answers == {
        name: ["StatusCode.UNIMPLEMENTED", f"{name}: {UNSUPPORTED[name]}"]
        for name in UNSUPPORTED
        if name != "ModelStreamInfer"  # test_open_inference_refusals has the stream
    }


def test_no_method_that_triton_has_is_unknown_here(address: str) -> None:
    methods = heard("methods", "")
    assert len(methods) > 15
    with grpc.insecure_channel(address) as channel:
        unknown = ended(channel, "NoSuchMethod")
        assert unknown[0] is grpc.StatusCode.UNIMPLEMENTED
        assert [name for name in methods if ended(channel, name) == unknown] == []


def ended(channel: grpc.Channel, method: str) -> tuple[grpc.StatusCode, str]:
    """Return how a call with an empty request ends."""
    call: Any = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
    answers = call(iter([b""]), timeout=20)
    with suppress(grpc.RpcError):  # which has the same code and details
        list(answers)
    return answers.code(), answers.details()


def test_our_contract_is_a_part_of_tritons() -> None:
    files = (inference_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    messages = [message for file in files for message in file.message_types_by_name.values()]
    ours = dict(pair for message in messages for pair in _fields(message))
    assert len(ours) > 50
    theirs = heard("contract", "")
    # KServe's protocol has the properties of a model, Triton's leaves their number unused.
    beyond = {name for name, field in ours.items() if theirs.get(name) != field}
    assert {name for name in beyond if "ropert" not in name} == set()


def _fields(descriptor: Descriptor) -> Iterator[tuple[str, str]]:
    for field in descriptor.fields:
        kind = field.message_type.full_name if field.message_type else ""
        yield field.full_name, f"{field.number} {field.type} {field.is_repeated} {kind}"
    for nested in descriptor.nested_types:
        yield from _fields(nested)
