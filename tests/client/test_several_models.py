"""Clients of a server with several models: each call gets the model that it names, or an error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import (
    Client,
    InvalidInputError,
    ModelNotFoundError,
    NotReadyError,
    ServerError,
    SettingsError,
)
from mlpserve_client._cli.main import main
from mlpserve_model import Store
from mlpserve_server.server import Server
from tests.support.client import Connect, StartScripted, StartServer
from tests.support.publishing import publish_to

ROW = np.full((3, 4), 0.5, np.float32)


@pytest.fixture
def target(tmp_path: Path, start: StartServer) -> str:
    """A server with two models, one of them in two versions, and one that has none yet."""
    for name, seeds in (("digits", (0,)), ("letters", (1, 2))):
        for seed in seeds:
            publish_to(Store(tmp_path / "store", name), seed=seed)
    (tmp_path / "store" / "empty").mkdir()
    server: Server = start(model=("*",))
    return server.address


def test_a_call_gets_the_model_that_it_or_its_client_names(connect: Connect, target: str) -> None:
    client = connect(target, model="letters")
    client.wait_until_ready()
    assert client.predict(ROW).model.name == "letters"
    assert client.predict(ROW, model="digits").model.name == "digits"
    assert client.predict(ROW, version=1).model.version == 1
    assert client.predict_batch([ROW] * 3, model="digits").model.name == "digits"
    assert [p.model.name for p in client.predict_stream([ROW] * 3)] == ["letters"] * 3
    assert client.explain(ROW, model="digits").model.name == "digits"
    assert client.model().ref.version == 2
    assert client.model(model="digits").ref.version == 1


def test_a_long_batch_stays_with_its_model(connect: Connect, target: str) -> None:
    client = connect(target, model="letters")
    client.wait_until_ready()
    answer = client.predict_batch(np.full((40_000, 3, 4), 0.5, np.float32))
    assert (answer.model.name, len(answer)) == ("letters", 40_000)


def test_models_and_versions_are_listed(connect: Connect, target: str) -> None:
    client = connect(target)
    client.wait_until_ready()
    found = {model.ref.name: model for model in client.models()}
    assert {name: model.version for name, model in found.items()} == {
        "digits": 1, "empty": 0, "letters": 2,
    }  # fmt: skip
    assert "champion of empty is not there" in found["empty"].reason
    assert [version.version for version in client.versions("letters")] == [2, 1]
    with pytest.raises(ModelNotFoundError, match="did you mean letters"):
        client.versions("lettres")
    with pytest.raises(InvalidInputError, match="served are digits, empty, letters"):
        client.predict(ROW)


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "*", 7])
def test_a_name_that_no_model_has_is_refused(connect: Connect, target: str, name: Any) -> None:
    with pytest.raises(InvalidInputError, match="invalid model name"):
        connect(target).predict(ROW, model=name)
    with pytest.raises(SettingsError, match="invalid model name"):
        connect(target, model=name)


def test_a_server_that_answers_with_another_model_is_an_error(
    connect: Connect, scripted: StartScripted
) -> None:
    # As servers do that were made before there were several: they know no name in a request.
    client = connect(scripted().target, model="letters")
    for call in (lambda: client.predict(np.zeros((28, 28), np.uint8)), client.model):
        with pytest.raises(ServerError, match="letters was selected, and the server answered"):
            call()


@pytest.mark.usefixtures("patient")
def test_health_is_that_of_the_model_named(connect: Connect, target: str) -> None:
    client = connect(target, model="letters")
    client.wait_until_ready()
    assert client.health()
    assert client.health(model="digits")
    assert not client.health(model="empty")
    assert client.health(model="empty", live=True)
    assert not client.health(model="nothing")
    with pytest.raises(NotReadyError, match="its model empty is not"):
        connect(target, model="empty").wait_until_ready(timeout=0.5)


def test_a_server_that_knows_no_health_of_models_is_ready_as_a_whole(
    connect: Connect, scripted: StartScripted
) -> None:
    assert connect(scripted().target).health(model="letters")
    connect(scripted().target, model="letters").wait_until_ready()


def test_the_command_tells_the_health_of_a_model(
    target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_TARGET", target)
    # As in the server's own container, whose health check finds the server's variables.
    monkeypatch.setenv("MLPSERVE_MODEL", "digits,letter*")
    with Client(target, model="digits") as client:
        client.wait_until_ready()
    assert main(["health"]) == 0
    assert main(["health", "--model", "letters"]) == 0
    assert main(["health", "--model", "empty"]) == 1
    assert "not ready" in capsys.readouterr().err


def test_the_command_selects_a_model(
    target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_TARGET", target)
    with Client(target, model="digits") as client:
        client.wait_until_ready()

    def run(*arguments: str) -> str:
        assert main(arguments) == 0
        return capsys.readouterr().out

    listed = run("models").splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [
        ["digits", "1", "ACTIVE"], ["empty", "-", "UNSPECIFIED"], ["letters", "2", "ACTIVE"],
    ]  # fmt: skip
    assert len(run("versions", "--model", "letters").splitlines()) == 3
    monkeypatch.setenv("MLPSERVE_MODEL", "letters")
    assert "letters" in run("model")
    assert main(["versions", "--model", "No"]) == 2
    assert "invalid model name" in capsys.readouterr().err
