"""docs/calls.md shows every call in three ways, and they work as they stand there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2
from mlpserve_client.testing import ModelServer
from mlpserve_server import errors
from mlpserve_server.transport.status import CODES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "calls.md").read_text()
TRITON = ROOT / ".venv-triton" / "bin" / "python"
MODULES = ROOT / ".node" / "node_modules"
BUF = ROOT / ".venv" / "bin" / "buf"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


# Every service and method that a server has, but for reflection. The newest libraries of the
# health protocol have a `List`, which those that clients have do not.
METHODS = [
    (service.full_name, method.name)
    for module in (
        prediction_pb2,
        explanation_pb2,
        feedback_pb2,
        model_pb2,
        inference_pb2,
        health_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name != "List"
]


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_every_call_has_an_example_in_each_language(service: str, method: str) -> None:
    assert f"## `{service}`" in TEXT
    assert f"{service}/{method}" in "".join(blocks("sh"))
    assert re.search(rf"'{method}'|client\.{method}\(", "".join(blocks("js")))
    snake = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", method).lower()
    if method == "ModelInfer":
        snake = "client.infer"
    python = "".join(blocks("python") + blocks("py"))
    assert re.search(rf"# {method}\b|{snake}|\.{method}\(", python)


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed: make install")
def test_buf_curl_calls_everything_through_reflection(server: ModelServer) -> None:
    script = "".join(blocks("sh")).replace("localhost:50051", server.target)
    said = run(
        ["bash", "-euo", "pipefail", "-c", script], PATH=f"{BUF.parent}:{os.environ['PATH']}"
    )
    for part in ('"probabilities"', '"labels"', '"STATE_ACTIVE"', '"live": true', '"ready": true'):
        assert part in said, said
    assert '"attributions"' in said
    assert '"baselineScores"' in said
    assert '"recorded": 1' in said
    for part in ('"name": "mlpserve"', '"mlpserve_npz"', '"rawOutputContents"', '"SERVING"'):
        assert part in said, said


@pytest.mark.skipif(
    not (MODULES.exists() and shutil.which("node")),
    reason="Node.js or its packages are not installed: make test-node",
)
def test_node_calls_everything(server: ModelServer) -> None:
    script = "".join(blocks("js")).replace("localhost:50051", server.target)
    said = run(["node", "-e", script], NODE_PATH=str(MODULES))
    for part in (
        "[ 2, 10 ]",
        "STATE_ACTIVE",
        "live: true",
        "ready: true",
        "[ -1, 28, 28 ]",
        "recorded: 1",
    ):
        assert part in said, said
    assert said.count("SERVING") == 2


@pytest.mark.skipif(
    not TRITON.exists(), reason="Triton's client is not installed: make test-triton"
)
def test_tritons_client_runs_its_example(server: ModelServer) -> None:
    (script,) = blocks("py")
    said = run([str(TRITON), "-c", script.replace("localhost:50051", server.target)])
    assert said.startswith("True True True\n")
    assert "(1, 10)" in said


def test_the_errors_stand_in_the_document_with_their_codes_and_reasons() -> None:
    section = TEXT.split("\n## Errors\n")[1]
    described = {
        (cells[1].strip(" `"), reason)
        for line in section.splitlines()
        if (cells := line.split("|"))[1:] and "`" in cells[1]
        for reason in re.findall(r"`(\w+)`", cells[2])
    } - {("code", "ErrorInfo.reason")}
    sent = {
        (code.name, kind.reason)
        for base, code in CODES.items()
        if base is not errors.Abandoned  # nobody is there to read it
        for kind in (base, *base.__subclasses__())
    }
    assert described == sent | {(grpc.StatusCode.INTERNAL.name, errors.ServingError.reason)}
