"""TLS, mutual TLS and tokens, against servers that insist on them."""

from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from mlpserve_client import ConnectionFailedError, SettingsError, Tls, UnauthenticatedError
from mlpserve_client._cli.main import main
from tests.support.authority import Authority, NewAuthority
from tests.support.client import Connect, Scripted, StartScripted

INPUT = [0.0, 1.0]


class Secured(Protocol):
    """Starts a server with a certificate for a name; mutual: it wants one from callers."""

    def __call__(self, name: str = "127.0.0.1", mutual: bool = False) -> Scripted: ...


@pytest.fixture
def secured(authority: Authority, scripted: StartScripted) -> Secured:
    """Start a server with a certificate for a name; mutual: it wants one from callers."""

    def secured(name: str = "127.0.0.1", mutual: bool = False) -> Scripted:
        cert, key = authority.issue(name)
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), cert.read_bytes())],
            authority.ca.read_bytes() if mutual else None,
            mutual,
        )
        return scripted(credentials=credentials)

    return secured


def test_an_encrypted_call_is_answered(
    connect: Connect, secured: Secured, authority: Authority
) -> None:
    client = connect(secured().target, tls=Tls(ca=authority.ca))

    assert client.predict(INPUT).name == "yes"
    assert client.health() is True


def test_a_server_of_another_authority_is_refused(
    connect: Connect, secured: Secured, new_authority: NewAuthority
) -> None:
    foreign = new_authority().ca
    client = connect(secured().target, tls=Tls(ca=foreign))

    with pytest.raises(ConnectionFailedError, match=r"(?i)certificate.verify.failed"):
        client.predict(INPUT, timeout=0.5)


def test_a_certificate_for_another_name_is_refused_unless_expected(
    connect: Connect, secured: Secured, authority: Authority
) -> None:
    server = secured("models.test")

    with pytest.raises(ConnectionFailedError):
        connect(server.target, tls=Tls(ca=authority.ca)).predict(INPUT, timeout=0.5)
    tls = Tls(ca=authority.ca, server_name="models.test")
    assert connect(server.target, tls=tls).predict(INPUT).name == "yes"


def test_plain_text_to_an_encrypted_server_fails_in_time(
    connect: Connect, secured: Secured
) -> None:
    with pytest.raises(ConnectionFailedError, match="the server may want TLS"):
        connect(secured().target).predict(INPUT, timeout=0.5)


def test_encryption_to_a_plain_server_fails_in_time(
    connect: Connect, scripted: StartScripted, authority: Authority
) -> None:
    client = connect(scripted().target, tls=Tls(ca=authority.ca))
    with pytest.raises(ConnectionFailedError, match="the server may not use TLS"):
        client.predict(INPUT, timeout=0.5)


def test_mutual_tls_shows_our_certificate(
    connect: Connect, secured: Secured, authority: Authority
) -> None:
    server = secured(mutual=True)
    cert, key = authority.issue("caller")

    tls = Tls(ca=authority.ca, cert=cert, key=key)
    assert connect(server.target, tls=tls).predict(INPUT).name == "yes"
    with pytest.raises(ConnectionFailedError):
        connect(server.target, tls=Tls(ca=authority.ca)).predict(INPUT, timeout=0.5)


def test_a_list_of_targets_shares_a_name(
    connect: Connect, secured: Secured, authority: Authority
) -> None:
    servers = [secured("models.test"), secured("models.test")]
    targets = [server.target for server in servers]

    client = connect(targets, tls=Tls(ca=authority.ca, server_name="models.test"))
    for _ in range(20):
        client.predict(INPUT)

    assert all(server.predictions > 0 for server in servers)
    with pytest.raises(SettingsError, match="server_name"):
        connect(targets, tls=Tls(ca=authority.ca))


def test_a_token_goes_along_with_every_call(connect: Connect, scripted: StartScripted) -> None:
    server = scripted()
    client = connect(server.target, token="s3cret")

    client.predict(INPUT)
    client.model()

    assert len(server.metadata) == 3  # with the class names
    assert {call["authorization"] for call in server.metadata} == {"Bearer s3cret"}


def test_a_refused_token_says_what_to_pass(connect: Connect, scripted: StartScripted) -> None:
    def refuse(number: int, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    with pytest.raises(UnauthenticatedError, match=r"who are you.*MLPSERVE_TOKEN"):
        connect(scripted(refuse).target, token="wrong").predict(INPUT)


def test_the_command_takes_flags_and_variables(
    secured: Secured,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = secured(mutual=True)
    cert, key = map(str, authority.issue("caller"))
    (tmp_path / "token").write_text("s3cret\n")

    monkeypatch.setenv("MLPSERVE_TLS_CA", str(authority.ca))
    monkeypatch.setenv("MLPSERVE_TLS_CERT", cert)
    monkeypatch.setenv("MLPSERVE_TLS_KEY", key)
    assert main(["model", "--target", server.target]) == 0

    monkeypatch.delenv("MLPSERVE_TLS_CA")
    flags = ["--tls-ca", str(authority.ca), "--tls-cert", cert, "--tls-key", key]
    token = ["--token-file", str(tmp_path / "token")]
    assert main(["model", "--target", server.target, *flags, *token]) == 0
    assert server.metadata[-1]["authorization"] == "Bearer s3cret"
