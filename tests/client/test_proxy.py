"""Proxy variables, as Docker's client puts them into every container."""

import os
import subprocess
import sys

import pytest

from mlpserve_client import ConnectionFailedError
from mlpserve_client._settings import resolve
from tests.support.client import Connect, StartScripted

DEAD = "http://user:s3cret@127.0.0.1:9"
VARIABLES = ["http_proxy", "https_proxy", "grpc_proxy"]


@pytest.mark.parametrize("variable", VARIABLES)
def test_targets_on_this_machine_are_reached_without_the_proxy(
    connect: Connect,
    scripted: StartScripted,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, DEAD)
    first, second = scripted().target, scripted().target

    for target in (first, first.replace("127.0.0.1", "localhost"), [first, second]):
        client = connect(target)
        assert client.predict([0.0, 1.0]).name == "yes"
        assert client.health()


def test_the_health_check_of_a_container_goes_straight(scripted: StartScripted) -> None:
    environment = os.environ | dict.fromkeys(VARIABLES, DEAD)
    command = [sys.executable, "-m", "mlpserve_client", "health", "--target", scripted().target]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, b"ready\n"), done.stderr


@pytest.mark.parametrize("call", ["predict", "health"])
def test_an_error_about_a_target_elsewhere_names_the_proxy_and_no_password(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setenv("http_proxy", DEAD)
    client = connect("192.0.2.1:50051", timeout=0.5)

    with pytest.raises(ConnectionFailedError, match=r"http_proxy=127\.0\.0\.1:9;") as caught:
        client.health() if call == "health" else client.predict([0.0, 1.0])
    assert "s3cret" not in str(caught.value)


def test_the_proxy_is_the_one_that_grpc_takes() -> None:
    every = dict.fromkeys(VARIABLES, DEAD)
    assert resolve(every).proxy.startswith("grpc_proxy=")
    assert resolve(every | {"grpc_proxy": ""}).proxy.startswith("https_proxy=")
    assert resolve({}).proxy == ""
