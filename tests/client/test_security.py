"""TLS, mutual TLS and tokens, against servers that insist on them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve_client import ConnectionFailedError, SettingsError, Tls, UnauthenticatedError
from mlpserve_client._cli import main

INPUT = [0.0, 1.0]


class Authority:
    """Certificates that expire tomorrow, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._openssl("req", "-x509", *self._new("ca"), "-out", "ca.pem", "-subj", "/CN=test ca")
        self.ca = folder / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Issue a certificate for a host name; return it and its key."""
        request = ["req", *self._new(name), "-out", f"{name}.csr", "-subj", f"/CN={name}"]
        self._openssl(*request, "-addext", f"subjectAltName=DNS:{name}")
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"]
        copy = ["-CAcreateserial", "-copy_extensions", "copy", "-days", "1"]
        self._openssl(*sign, *copy, "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _new(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        return [*curve, "-noenc", "-keyout", f"{name}.key"]

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("the certificates are made by openssl, which is not installed")
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture
def secured(authority: Authority, scripted: Callable[..., Any]) -> Callable[..., Any]:
    """Start a server with a certificate for a name; mutual: it wants one from callers."""

    def secured(name: str = "localhost", mutual: bool = False) -> Any:
        cert, key = authority.issue(name)
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), cert.read_bytes())],
            authority.ca.read_bytes() if mutual else None,
            mutual,
        )
        return scripted(credentials=credentials)

    return secured


def test_an_encrypted_call_is_answered(
    connect: Callable[..., Any], secured: Callable[..., Any], authority: Authority
) -> None:
    client = connect(secured().target, tls=Tls(ca=authority.ca))

    assert client.predict(INPUT).name == "yes"
    assert client.health() is True


def test_a_server_of_another_authority_is_refused(
    connect: Callable[..., Any], secured: Callable[..., Any], tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "foreign").ca
    client = connect(secured().target, tls=Tls(ca=foreign))

    with pytest.raises(ConnectionFailedError, match=r"(?i)certificate.verify.failed"):
        client.predict(INPUT, timeout=0.5)


def test_a_certificate_for_another_name_is_refused_unless_expected(
    connect: Callable[..., Any], secured: Callable[..., Any], authority: Authority
) -> None:
    server = secured("models.test")

    with pytest.raises(ConnectionFailedError):
        connect(server.target, tls=Tls(ca=authority.ca)).predict(INPUT, timeout=0.5)
    tls = Tls(ca=authority.ca, server_name="models.test")
    assert connect(server.target, tls=tls).predict(INPUT).name == "yes"


def test_plain_text_to_an_encrypted_server_fails_in_time(
    connect: Callable[..., Any], secured: Callable[..., Any]
) -> None:
    with pytest.raises(ConnectionFailedError):
        connect(secured().target).predict(INPUT, timeout=0.5)


def test_mutual_tls_shows_our_certificate(
    connect: Callable[..., Any], secured: Callable[..., Any], authority: Authority
) -> None:
    server = secured(mutual=True)
    cert, key = authority.issue("caller")

    tls = Tls(ca=authority.ca, cert=cert, key=key)
    assert connect(server.target, tls=tls).predict(INPUT).name == "yes"
    with pytest.raises(ConnectionFailedError):
        connect(server.target, tls=Tls(ca=authority.ca)).predict(INPUT, timeout=0.5)


def test_a_list_of_targets_shares_a_name(
    connect: Callable[..., Any], secured: Callable[..., Any], authority: Authority
) -> None:
    servers = [secured("models.test"), secured("models.test")]
    targets = [server.target for server in servers]

    client = connect(targets, tls=Tls(ca=authority.ca, server_name="models.test"))
    for _ in range(20):
        client.predict(INPUT)

    assert all(server.predictions > 0 for server in servers)
    with pytest.raises(SettingsError, match="server_name"):
        connect(targets, tls=Tls(ca=authority.ca))


def test_a_token_goes_along_with_every_call(
    connect: Callable[..., Any], scripted: Callable[..., Any]
) -> None:
    server = scripted()
    client = connect(server.target, token="s3cret")

    client.predict(INPUT)
    client.model()

    assert len(server.metadata) == 3  # with the class names
    assert {call["authorization"] for call in server.metadata} == {"Bearer s3cret"}


def test_a_refused_token_says_what_to_pass(
    connect: Callable[..., Any], scripted: Callable[..., Any]
) -> None:
    def refuse(number: int, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    with pytest.raises(UnauthenticatedError, match=r"who are you.*MLPSERVE_TOKEN"):
        connect(scripted(refuse).target, token="wrong").predict(INPUT)


def test_the_command_takes_flags_and_variables(
    secured: Callable[..., Any],
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
