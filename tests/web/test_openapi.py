"""Requests generated from the OpenAPI description: none is answered with a fault."""

import subprocess
from pathlib import Path

import pytest

from tests.web.conftest import Web

SCHEMATHESIS = Path(__file__).parents[2] / ".venv-triton" / "bin" / "schemathesis"

pytestmark = pytest.mark.skipif(
    not SCHEMATHESIS.exists(), reason="Schemathesis is not installed: make test-triton"
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("examples", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_no_generated_request_is_answered_with_a_fault(
    web: Web, tmp_path: Path, examples: int
) -> None:
    command = [
        str(SCHEMATHESIS), "run", f"{web.address}/openapi.json",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance",
        "--max-examples", str(examples), "--seed", "1", "--no-color",
    ]  # fmt: skip

    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280)

    assert run.returncode == 0, run.stdout + run.stderr
