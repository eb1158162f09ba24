"""The client, its command and the server's own health check against our server, secured."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client, ConnectionFailedError, Tls, UnauthenticatedError
from mlpserve_client.testing import ModelServer
from tests.support.authority import Authority, NewAuthority
from tests.support.client import Connect, Pixels, StartServer
from tests.support.server import ANY_TRANSPORT

TOKEN = "the-token-of-these-tests"
PROGRAM = [sys.executable, "-m", "mlpserve_client"]
COMMANDS = (["predict", "--demo"], ["models"], ["model"], ["health"])

each_transport = pytest.mark.parametrize("transport", ["direct", "standard"])


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text(f"# the server's own list\n{TOKEN}  # ours\nan-older-token-of-others\n")
    return path


@pytest.fixture
def secured(
    start: StartServer, server: ModelServer, authority: Authority, transport: str
) -> Callable[..., str]:
    """Start our server with a certificate for this name; gives its target once it is ready."""

    def secured(name: str = "localhost", mutual: bool = False, **changes: Any) -> str:
        cert, key = authority.issue(name)
        tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": authority.ca if mutual else None}
        settings = {"store": server.store, "transport": transport, **tls, **changes}
        address: str = start(**settings).address
        target = f"localhost:{address.rpartition(':')[2]}"
        shown, its_key = authority.issue("caller")
        with Client(target, tls=Tls(authority.ca, shown, its_key, name)) as client:
            deadline = time.monotonic() + 20
            while not client.health():
                assert time.monotonic() < deadline
        return target

    return secured


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `mlpserve-client` with these variables and no others of ours."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLPSERVE_")}
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@each_transport
def test_the_client_calls_encrypted_with_a_certificate_and_a_token(
    connect: Connect,
    secured: Callable[..., str],
    authority: Authority,
    token_file: Path,
    pixels: Pixels,
) -> None:
    cert, key = authority.issue("caller")
    target = secured(mutual=True, token_file=token_file)
    client = connect(target, tls=Tls(ca=authority.ca, cert=cert, key=key), token=TOKEN)

    assert client.health() is True
    assert client.predict(pixels[0]).model.version == 1
    assert len(client.predict_batch(pixels).labels) == len(pixels)
    assert client.model().version == 1
    assert [version.version for version in client.versions()] == [1]


@each_transport
@pytest.mark.parametrize("token", [None, "a-token-of-somebody-else"])
def test_the_client_without_the_right_token_is_told_so_at_once_and_still_sees_health(
    connect: Connect,
    secured: Callable[..., str],
    authority: Authority,
    token_file: Path,
    pixels: Pixels,
    slept: list[float],
    token: str | None,
) -> None:
    target = secured(token_file=token_file)
    client = connect(target, tls=Tls(ca=authority.ca), token=token)

    assert client.health() is True
    calls: list[Callable[[], object]] = [
        lambda: client.predict(pixels[0]), client.model, client.models,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UnauthenticatedError, match="MLPSERVE_TOKEN"):
            call()
    assert slept == [], "it is of no use to try again"


@each_transport
def test_the_client_without_a_certificate_that_is_known_cannot_connect(
    connect: Connect,
    secured: Callable[..., str],
    authority: Authority,
    new_authority: NewAuthority,
    pixels: Pixels,
) -> None:
    target = secured(mutual=True)
    expired, foreign = authority.issue("caller", days=-1), new_authority().issue("caller")

    for shown in ((None, None), expired, foreign):
        client = connect(target, tls=Tls(authority.ca, *shown))
        with pytest.raises(ConnectionFailedError):
            client.predict(pixels[0], timeout=1)


# A command is a client with other settings.
@ANY_TRANSPORT
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: words[0])
def test_the_command_works_with_the_variables_that_the_server_has(
    secured: Callable[..., str],
    authority: Authority,
    token_file: Path,
    arguments: list[str],
) -> None:
    """As in the server's container, whose health check finds the server's own variables."""
    cert, key = authority.issue()
    target = secured(mutual=True, tls_cert=cert, tls_key=key, token_file=token_file)

    done = command(
        *arguments,
        MLPSERVE_TARGET=target,
        MLPSERVE_TLS_CERT=str(cert),
        MLPSERVE_TLS_KEY=str(key),
        MLPSERVE_TLS_CLIENT_CA=str(authority.ca),
        MLPSERVE_TLS_CA=str(authority.ca),
        MLPSERVE_TOKEN_FILE=str(token_file),
    )

    assert done.returncode == 0, done.stderr


@ANY_TRANSPORT
def test_the_health_command_needs_the_name_when_the_certificate_has_another(
    secured: Callable[..., str], authority: Authority
) -> None:
    target = secured("models.example")
    variables = {"MLPSERVE_TARGET": target, "MLPSERVE_TLS_CA": str(authority.ca)}

    assert command("health", "--timeout", "2", **variables).returncode == 1
    variables |= {"MLPSERVE_TLS_SERVER_NAME": "models.example"}
    assert command("health", **variables).returncode == 0


@ANY_TRANSPORT
def test_the_health_command_fails_without_what_the_server_wants_and_shows_no_secret(
    secured: Callable[..., str], authority: Authority, token_file: Path
) -> None:
    target = secured(token_file=token_file)

    plain = command("health", "--timeout", "2", MLPSERVE_TARGET=target)
    assert plain.returncode == 1
    wrong = {"MLPSERVE_TLS_CA": str(authority.ca), "MLPSERVE_TOKEN": "a-wrong-token-of-mine"}
    refused = command("predict", "--demo", MLPSERVE_TARGET=target, **wrong)
    assert refused.returncode == 1
    assert "token" in refused.stderr
    assert "a-wrong-token-of-mine" not in refused.stderr + refused.stdout


@each_transport
def test_a_client_that_stays_connected_goes_through_a_rotation_of_certificates(
    secured: Callable[..., str], authority: Authority, pixels: Pixels, tmp_path: Path
) -> None:
    places = tmp_path / "tls.crt", tmp_path / "tls.key"

    def rotate() -> None:
        for new, place in zip(authority.issue(), places, strict=True):
            new.replace(place)

    rotate()
    target = secured(tls_cert=places[0], tls_key=places[1])
    done = threading.Event()

    def rotating() -> None:
        while not done.wait(0.05):
            rotate()

    rotations = threading.Thread(target=rotating)
    rotations.start()
    try:
        for _ in range(10):
            with Client(target, tls=Tls(ca=authority.ca)) as client:
                for image in pixels:
                    assert client.predict(image).model.version == 1
                assert np.isfinite(client.predict_batch(pixels).probabilities).all()
    finally:
        done.set()
        rotations.join()
