"""The profile `tls`: encrypted both ways, with certificates and tokens that are rotated."""

from pathlib import Path

import numpy as np
import pytest

from mlpserve_client import Client, MlpserveError, Tls
from mlpserve_client._settings import read_token
from tests.support.containers import NewStack, Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

FILES = ("ca.crt", "client.crt", "client.key", "tokens")


@pytest.fixture
def stack(new_stack: NewStack) -> Stack:
    """A stack with the profile up, beside the plain server."""
    port = new_stack().target.rpartition(":")[2]
    stack = new_stack(MLPSERVE_TLS_PORT=port)
    stack.up("--profile", "tls")
    return stack


def encrypted(stack: Stack) -> str:
    """Where the profile's server is reached from the host."""
    return f"localhost:{stack.environment['MLPSERVE_TLS_PORT']}"


def copied(stack: Stack, folder: Path) -> Path:
    """Copy what a caller on the host needs out of the volume."""
    folder.mkdir(exist_ok=True)
    for name in FILES:
        stack.compose("cp", f"server-tls:/certificates/{name}", str(folder / name))
    return folder


def caller(stack: Stack, folder: Path, *, certificate: bool = True, token: bool = True) -> Client:
    tls = Tls(
        ca=folder / "ca.crt",
        cert=folder / "client.crt" if certificate else None,
        key=folder / "client.key" if certificate else None,
    )
    secret = read_token(folder / "tokens") if token else None
    return Client(encrypted(stack), tls=tls, token=secret, timeout=3)


def test_only_callers_with_certificate_and_token_get_answers(stack: Stack, tmp_path: Path) -> None:
    folder = copied(stack, tmp_path)

    assert "version 1" in stack.run("client-tls", "predict", "--demo")
    with caller(stack, folder) as client:
        assert client.predict(np.zeros((8, 8), np.uint8)).model.version == 1
    for lacking in ({"certificate": False}, {"token": False}):
        with caller(stack, folder, **lacking) as client, pytest.raises(MlpserveError):
            client.model()
    with Client(encrypted(stack), timeout=3) as plain, pytest.raises(MlpserveError):
        plain.model()


def test_certificates_and_tokens_are_rotated_without_a_failed_call(
    stack: Stack, tmp_path: Path
) -> None:
    old = copied(stack, tmp_path / "old")
    calls = 0

    with caller(stack, old) as before:
        before.model()
        stack.run("certificates", "renew")
        new = copied(stack, tmp_path / "new")
        assert (new / "client.crt").read_bytes() != (old / "client.crt").read_bytes()
        stack.run("certificates", "new-token")
        new = copied(stack, tmp_path / "new")
        assert read_token(new / "tokens") != read_token(old / "tokens")

        def taken_up() -> bool:
            nonlocal calls
            before.model()  # the old token is still in the file
            calls += 1
            try:
                with caller(stack, new) as after:
                    after.model()
            except MlpserveError:
                return False
            return True

        seconds = stack.wait_for(taken_up, 30)

    events = stack.events("server-tls")
    print(
        f"\nnew token and certificate taken up after {seconds:.1f} s; "
        f"{calls} calls with the old token until then, none failed"
    )
    assert events.count("credentials in force") >= 4  # two of each
    stack.run("certificates", "drop-old-tokens")

    def withdrawn() -> bool:
        try:
            with caller(stack, old) as client:
                client.model()
        except MlpserveError:
            return True
        return False

    stack.wait_for(withdrawn, 30)
    with caller(stack, new) as client:
        assert client.model().ref.version == 1
