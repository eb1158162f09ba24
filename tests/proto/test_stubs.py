"""The committed stubs: what proto/ says now, for the oldest libraries supported."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from mlpserve.v1 import (
    explanation_pb2,
    feedback_pb2,
    model_pb2,
    model_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
    status_pb2,
)

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
GENERATOR = ROOT / ".venv-proto" / "bin" / "python"

with_generator = pytest.mark.skipif(
    not GENERATOR.exists(), reason="the stubs' generator is not installed: make install"
)


def _stubs(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*_pb2*.py*")}


def _requirement(name: str) -> str:
    """The lowest version of a library that the project allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(rf"^{name}>=([\d.]+)", "\n".join(project["dependencies"]), re.MULTILINE)
    return str(version)


@with_generator
def test_the_committed_stubs_are_what_the_generator_makes_of_the_contract(tmp_path: Path) -> None:
    command = [GENERATOR, PROTO / "generate.py", tmp_path]
    subprocess.run(command, check=True, cwd=ROOT)
    assert {k: v for k, v in _stubs(PROTO).items() if "__pycache__" not in k} == _stubs(tmp_path)


def test_every_contract_file_has_stubs_with_types() -> None:
    names = set(_stubs(PROTO))
    for path in PROTO.rglob("*.proto"):
        stem = path.relative_to(PROTO).with_suffix("").as_posix()
        kinds = ("_pb2", "_pb2_grpc") if "service " in path.read_text() else ("_pb2",)
        assert {f"{stem}{kind}{end}" for kind in kinds for end in (".py", ".pyi")} <= names


def test_the_stubs_refuse_no_version_that_the_project_allows() -> None:
    for stub in PROTO.rglob("*_pb2_grpc.py"):
        version = f"{_requirement('grpcio')}.0"
        assert f"GRPC_GENERATED_VERSION = '{version}'\n" in stub.read_text()
    for stub in PROTO.rglob("*_pb2.py"):
        assert f"# Protobuf Python Version: {_requirement('protobuf')}\n" in stub.read_text()


@with_generator
def test_the_stubs_work_with_an_older_protobuf_too() -> None:
    code = (
        "from mlpserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc\n"
        "sent = prediction_pb2.PredictResponse(label=3, model=model_pb2.ModelRef(version=7))\n"
        "got = prediction_pb2.PredictResponse.FromString(sent.SerializeToString())\n"
        "print(got.label, got.model.version)"
    )
    environment = os.environ | {"PYTHONPATH": str(PROTO), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [GENERATOR, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout == "3 7\n"


class _Service(prediction_pb2_grpc.PredictionServiceServicer):
    def Predict(  # noqa: N802  # the contract's name
        self, request: prediction_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> prediction_pb2.PredictResponse:
        label = int.from_bytes(request.instance.data)
        return prediction_pb2.PredictResponse(label=label, probabilities=[0.25, 0.75])

    BatchPredict = Predict  # type: ignore[assignment]  # never called


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(_Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


def test_a_call_goes_through_the_stubs_and_back(channel: grpc.Channel) -> None:
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    tensor = prediction_pb2.Tensor(dtype=prediction_pb2.DATA_TYPE_UINT8, shape=[1], data=b"\7")
    response = stub.Predict(prediction_pb2.PredictRequest(instance=tensor), timeout=20)
    assert (response.label, list(response.probabilities)) == (7, [0.25, 0.75])


def test_a_method_that_a_server_lacks_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        model_pb2_grpc.ModelServiceStub(channel).GetModelVersion(
            model_pb2.GetModelVersionRequest(), timeout=20
        )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_all_messages_are_in_one_package() -> None:
    for module in (explanation_pb2, feedback_pb2, model_pb2, prediction_pb2, status_pb2):
        assert module.DESCRIPTOR.package == "mlpserve.v1"
