"""Triton's and KServe's REST clients, as they come, get the answers of the client library."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client
from mlpserve_client.testing import ModelServer
from tests.web.conftest import Web

PYTHON = Path(__file__).parents[2] / ".venv-triton" / "bin" / "python"
USER = Path(__file__).with_name("rest_user.py")

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="foreign clients are not installed: make test-triton"
)


def answers(web: Web, library: str) -> Any:
    command = [str(PYTHON), str(USER), web.address, library]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_right(server: ModelServer, given: dict[str, Any]) -> None:
    rows = {
        "float32": np.random.default_rng(4).random((5, 3, 4), np.float32),
        "uint8": np.random.default_rng(5).integers(0, 256, (5, 3, 4), np.uint8),
    }
    with Client(server.target) as client:
        for name, arrays in given.items():
            expected = client.predict_batch(rows[name.partition(",")[0]])
            np.testing.assert_allclose(
                np.reshape(arrays["probabilities"], (5, 3)), expected.probabilities, rtol=1e-6
            )
            assert np.ravel(arrays["labels"]).tolist() == expected.labels.tolist()


def test_tritons_client_is_answered(web: Web, server: ModelServer) -> None:
    given = answers(web, "triton")

    assert given.pop("health") == [True, True, True, True, False]
    assert given.pop("server") == "mlpserve"
    (described,) = given.pop("model")
    assert (described["name"], described["shape"]) == ("instances", [-1, 3, 4])
    assert len(given) == 5
    assert_right(server, given)


def test_kserves_client_is_answered(web: Web, server: ModelServer) -> None:
    given = answers(web, "kserve")

    assert given.pop("health") == [True, True, True]
    assert len(given) == 2
    assert_right(server, given)
