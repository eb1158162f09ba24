"""The command, run against a server."""

import json
import subprocess
import sys

import pytest

from mlpserve_client.testing import ModelServer

COMMAND = [sys.executable, "-m", "mlpserve_client"]


@pytest.fixture
def target(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands call the server."""
    monkeypatch.setenv("MLPSERVE_TARGET", server.target)


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def labels_in(output: str) -> list[int]:
    return [json.loads(line)["label"] for line in output.splitlines()]
