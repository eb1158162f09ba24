"""Clients and servers from before there were several models, with those of today."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client, ModelNotFoundError, NotOfferedError, ServerError
from mlpserve_model import Store
from tests.support.publishing import publish_to
from tests.support.system import RunServer
from tests.system.conftest import DRAFT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
USER = Path(__file__).with_name("one_model_user.py")
# How git finds what ended each time: a server that knows the name of its only model, and one to
# which a model's name in a request is an unknown field, which it drops.
ENDED_BY = {
    "one model": ["--diff-filter=A", "--", "server/mlpserve_server/lifecycle/models.py"],
    "no names": ["-Sstring name = 3", "--", "proto/mlpserve/v1/model.proto"],
}
PACKAGES = ("client", "server", "model", "proto")
# Where the code is that a program gets.
PLACES = """
import mlpserve.v1.model_pb2, mlpserve_client, mlpserve_model, mlpserve_server
for module in (mlpserve.v1.model_pb2, mlpserve_client, mlpserve_model, mlpserve_server):
    print(module.__file__)
"""
ROW = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


@pytest.fixture(scope="module", params=ENDED_BY)
def earlier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The variable by which Python takes the last code of that time."""
    if not (ROOT / ".git").exists():
        pytest.skip("the earlier release comes out of git's history")
    ended = git("log", "--format=%H", *ENDED_BY[request.param]).decode().split()
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{ended[-1]}^", *PACKAGES))) as archive:
        archive.extractall(folder, filter="data")
    path = {"PYTHONPATH": os.pathsep.join(str(folder / package) for package in PACKAGES)}
    places = subprocess.check_output(
        [sys.executable, "-c", PLACES], text=True, env=os.environ | path
    )
    assert all(Path(place).is_relative_to(folder) for place in places.splitlines()), places
    return path


@pytest.fixture(params=["--model mnist", "--model mnist,letters --default-model mnist"])
def server(request: pytest.FixtureRequest, run_server: RunServer, published: Store) -> str:
    """A server of today with one model, or with a default one."""
    return run_server("--workers", "1", *request.param.split())[0]


@pytest.fixture
def earlier_server(earlier: dict[str, str], published: Store) -> Iterator[str]:
    """A server of the earlier release."""
    command = [sys.executable, "-m", "mlpserve_server", "--store", str(published.folder.parent)]
    command += ["--listen", "127.0.0.1:0", "--workers", "1", "--log-format", "json"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | earlier
    ) as process:
        assert process.stderr
        yield json.loads(process.stderr.readline())["address"]
        process.terminate()
        process.stderr.read()


@pytest.fixture
def published(store: Store) -> Store:
    """Two versions of mnist and one of letters."""
    for own, seeds in ((store, (0, 1)), (Store(store.folder.parent, "letters"), (2,))):
        for seed in seeds:
            publish_to(own, seed, draft=DRAFT)
    return store


def use(address: str, environment: dict[str, str]) -> Any:
    """What a user's program says."""
    command = [sys.executable, str(USER), address]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(told: Any, store: Store) -> None:
    model = store.load(2)
    expected = model.predict(np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 64))
    assert told["model"] == ["mnist", 2, model.manifest.digest]
    assert np.allclose([float(p) for p in told["probabilities"]], expected[0], rtol=0, atol=2e-5)
    assert told["labels"] == expected.argmax(axis=1).tolist()
    assert told["label"] == told["labels"][0]
    assert (told["first"], told["champion"]) == (1, 2)
    assert told["described"] == [2, "0"]
    assert told["health"] == [True, True]
    assert told["refused"] == [
        "InvalidInputError", "ModelNotFoundError", "ModelNotFoundError", "InvalidInputError",
    ]  # fmt: skip


def test_an_earlier_client_calls_a_server_of_today(
    server: str, earlier: dict[str, str], published: Store
) -> None:
    check(use(server, earlier), published)


def test_a_client_of_today_calls_an_earlier_server(earlier_server: str, published: Store) -> None:
    check(use(earlier_server, {}), published)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.predict(ROW),
        lambda client: client.predict_batch([ROW] * 3),
        lambda client: list(client.predict_stream([ROW] * 3)),
        lambda client: client.explain(ROW),
        lambda client: client.model(),
        lambda client: client.versions(),
    ],
)
def test_another_model_of_an_earlier_server_is_an_error_and_never_its_only_one(
    earlier_server: str, call: Callable[[Client], object]
) -> None:
    with Client(earlier_server, model="letters", timeout=20) as client:
        client.wait_until_ready(30)  # its health of single models is that of the server
        assert client.health(model="letters")
        # What the server does not offer at all, such as Explain, is said to be missing.
        with pytest.raises((ModelNotFoundError, ServerError), match=r"letters|older than"):
            call(client)
        assert client.predict(ROW, model="mnist").model.name == "mnist"


def test_the_models_of_an_earlier_server_are_its_only_one_or_not_offered(
    earlier_server: str,
) -> None:
    with Client(earlier_server, timeout=20) as client:
        client.wait_until_ready(30)
        try:
            assert [model.ref.name for model in client.models()] == ["mnist"]
        except NotOfferedError as error:
            assert "older than this client" in str(error)  # noqa: PT017  # either is right
        assert [version.version for version in client.versions()] == [2, 1]
