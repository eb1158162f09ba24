"""KServe's SDK and MLServer's codecs, with their defaults, get the stored weights' answers."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from mlpserve_model import Store
from tests.support.publishing import Publish
from tests.support.server import Serve
from tests.support.waiting import eventually

PYTHON = Path(__file__).parents[3] / ".venv-triton" / "bin" / "python"
USER = Path(__file__).with_name("kserve_user.py")

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="KServe and MLServer are not installed: make test-triton"
)


Answers: TypeAlias = Callable[[str], dict[str, Any]]


@pytest.fixture
def answers(publish: Publish, serve: Serve) -> Answers:
    """Call with one of the libraries, and return what it is answered."""
    publish()
    stubs = serve()
    eventually(stubs.serving)

    def answers(library: str) -> dict[str, Any]:
        command = [str(PYTHON), str(USER), stubs.address, library]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return document

    return answers


def assert_right(store: Store, answer: dict[str, Any]) -> None:
    x = np.random.default_rng(4).random((5, 3, 4), np.float32)
    probabilities = store.load(1).predict(x.reshape(5, 12))
    np.testing.assert_allclose(answer["probabilities"], probabilities, rtol=1e-6)
    np.testing.assert_array_equal(np.ravel(answer["labels"]), probabilities.argmax(axis=1))


def test_kserves_sdk_is_answered(store: Store, answers: Answers) -> None:
    answer = answers("kserve")

    assert [answer.pop(name) for name in ("live", "ready", "model ready")] == [True, True, True]
    assert list(answer) == ["binary True", "binary False"]
    for arrays in answer.values():
        assert_right(store, arrays)


def test_mlservers_codecs_are_answered(store: Store, answers: Answers) -> None:
    answer = answers("mlserver")

    assert answer.pop("request codec") == 2
    assert list(answer) == ["raw True", "raw False"]
    for arrays in answer.values():
        assert_right(store, arrays)
