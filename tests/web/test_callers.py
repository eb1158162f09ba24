"""Who may call, and what a caller can do to others: tokens, origins, limits, stopping."""

import http.client
import json
import logging
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlpserve_client.testing import ModelServer
from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from mlpserve_web.cli import main
from mlpserve_web.listener import RarelyWarns, _listen
from mlpserve_web.origins import HostPolicy
from tests.web.conftest import StartWeb, Web

TOKEN = "a-token-that-is-long-enough-0123456789"
OF_OTHERS = "a-token-of-other-models-0123456789"


@pytest.fixture
def guarded(server: ModelServer, tmp_path: Path, start_web: StartWeb) -> Any:
    """A gateway to a server that wants tokens."""
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{TOKEN}\n{OF_OTHERS} shop-*\n")
    settings = Settings(
        store=Store(server.store, "mnist").folder.parent,
        listen=("127.0.0.1:0",),
        token_file=tokens,
        drain_seconds=0,
        poll_seconds=0.02,
    )
    with Server(settings) as running:
        yield start_web("--target", running.address)


def test_the_callers_token_is_passed_on(guarded: Web) -> None:
    path = "/v2/models/mnist"

    assert guarded.call(path).status == 401
    assert guarded.call(path, Authorization="Bearer wrong-0123456789-0123456789").status == 401
    assert guarded.call(path, Authorization="Basic abc").status == 401
    assert guarded.call(path, Authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.call(path).status == 401  # nobody borrows the token of another


def test_a_token_in_the_environment_is_nobodys(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("MLPSERVE_TOKEN", TOKEN)
    monkeypatch.setenv("MLPSERVE_TLS", "0")  # as a client's: plain text
    guarded: Web = request.getfixturevalue("guarded")
    assert guarded.call("/v2/models/mnist").status == 401
    assert guarded.call("/v2/models/mnist", Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MLPSERVE_TLS", "1"), ("MLPSERVE_TLS_CA", "ca.pem"), ("MLPSERVE_TLS_SERVER_NAME", "models")],
)
def test_who_means_tls_towards_the_servers_does_not_get_plain_text(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["--listen", "127.0.0.1:0"]) == 2
    assert f"{variable} is a client's: for TLS towards the servers give --target-tls" in (
        capsys.readouterr().err
    )


def test_a_token_of_other_models_is_forbidden_this_one(guarded: Web) -> None:
    answer = guarded.call("/v2/models/mnist", Authorization=f"Bearer {OF_OTHERS}")
    assert answer.status == 403
    assert "does not allow model 'mnist'" in answer.json["error"]


def test_many_wrong_tokens_close_no_call_of_a_right_one(guarded: Web) -> None:
    for number in range(100):
        wrong = f"Bearer wrong-{number}-0123456789-0123456789"
        assert guarded.call("/v2/models/mnist", Authorization=wrong).status == 401
    assert guarded.call("/v2/models/mnist", Authorization=f"Bearer {TOKEN}").status == 200


def test_a_page_of_another_site_may_not_call(web: Web) -> None:
    own = f"http://{web.host}:{web.port}"

    assert web.call("/v2", Origin="https://evil.example").status == 403
    assert web.call("/v2", Origin="null").status == 403
    assert web.call("/v2", Origin=own).status == 200
    preflight = web.call("/v2", method="OPTIONS", Origin="https://evil.example")
    assert "access-control-allow-origin" not in preflight.headers


def test_another_name_for_this_machine_is_refused_on_loopback(web: Web) -> None:
    assert web.call("/v2", Host="evil.example").status == 400


def test_beyond_loopback_a_name_that_a_site_could_have_is_refused_unless_it_is_named(
    server: ModelServer, start_web: StartWeb
) -> None:
    flags = ("--target", server.target, "--listen", "0.0.0.0:0", "--allow-plaintext")
    web = start_web(*flags, "--allow-host", "models.example,Other.example")

    refused = web.call("/v2", Host="evil.example", Origin="http://evil.example")
    assert refused.status == 400
    assert "--allow-host" in refused.json["error"]
    assert web.call("/v2", Host="models.example:8080").status == 200


@pytest.mark.parametrize(
    ("policy", "host", "is_allowed"),
    [
        (HostPolicy(loopback=True), "localhost:8080", True),
        (HostPolicy(loopback=True), "[::1]:8080", True),
        (HostPolicy(loopback=True), "web", False),
        (HostPolicy(("web",), loopback=True), "web:80", True),
        (HostPolicy(), "10.0.0.7:8080", True),
        (HostPolicy(), "[fe80::1]", True),
        (HostPolicy(), "mlpserve-web", True),
        (HostPolicy(), "mlpserve-web.models.svc.cluster.local:80", True),
        (HostPolicy(), "", True),
        (HostPolicy(), "evil.example", False),
        (HostPolicy(), "evil.example.", False),
        (HostPolicy(), "10.0.0.7.evil.example", False),
        (HostPolicy(("models.example",)), "MODELS.example.", True),
        (HostPolicy(("*",)), "evil.example", True),
        (HostPolicy(("*",), loopback=True), "evil.example", True),
        (HostPolicy(encrypted=True), "models.example", True),
    ],
)
def test_the_names_of_a_gateway(policy: HostPolicy, host: str, is_allowed: bool) -> None:
    assert policy.allows(host) == is_allowed


@pytest.mark.parametrize("name", ["https://models.example", "models.example:80"])
def test_what_is_not_a_name_is_refused_at_the_start(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--allow-host", name])
    assert "is not a name" in capsys.readouterr().err


def test_a_site_that_is_allowed_may_call(server: ModelServer, start_web: StartWeb) -> None:
    site = "https://pages.example"
    web = start_web("--target", server.target, "--allow-origin", site)

    answer = web.call("/v2", Origin=site)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, site)
    preflight = web.call(
        "/v2/models/mnist/infer",
        method="OPTIONS",
        Origin=site,
        Access_Control_Request_Method="POST",
    )
    assert preflight.status == 200
    assert web.call("/v2", Origin="https://evil.example").status == 403


def test_a_body_beyond_the_limit_is_refused(server: ModelServer, start_web: StartWeb) -> None:
    web = start_web("--target", server.target, "--max-body-bytes", "2000")

    answer = web.call("/v2/models/mnist/infer", b" " * 2001)

    assert (answer.status, list(answer.json)) == (413, ["error"])


def test_a_compressed_body_is_refused(web: Web) -> None:
    answer = web.call("/v2/models/mnist/infer", b"x", Content_Encoding="gzip")

    assert answer.status == 415


def test_requests_that_are_not_http_fill_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, rarely = logging.getLogger("test of uvicorn"), RarelyWarns()
    log.addFilter(rarely)
    for _ in range(100):
        log.warning("Invalid HTTP request received.")
        log.error("a fault")
    rarely._next.clear()  # a minute later
    log.warning("Invalid HTTP request received.")

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [vars(record)["left_out"] for record in warnings] == [0, 99]
    assert len(caplog.records) == 102


def test_a_request_that_is_not_http_is_warned_of_once(
    server: ModelServer, start_web: StartWeb
) -> None:
    web = start_web("--target", server.target)
    for _ in range(3):
        with socket.create_connection((web.host, web.port)) as caller:
            caller.sendall(b"nothing of the kind\r\n\r\n")
            assert b" 400 " in caller.recv(4096)
    web.process.send_signal(signal.SIGTERM)
    assert web.process.stderr
    events = [json.loads(line)["event"] for line in web.process.stderr]
    assert events.count("Invalid HTTP request received.") == 1


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v2 HT", b"POST /v2/models/mnist/infer HTTP/1.1\r\nHost: localhost\r\n"]
)
def test_half_a_head_is_not_waited_for(
    server: ModelServer, start_web: StartWeb, sent: bytes
) -> None:
    web = start_web("--target", server.target, "--request-seconds", "0.2")

    with socket.create_connection((web.host, web.port), timeout=30) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""  # closed by the gateway


def test_half_a_body_is_not_waited_for(server: ModelServer, start_web: StartWeb) -> None:
    web = start_web("--target", server.target, "--request-seconds", "0.2")
    head = "POST /v2/models/mnist/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"

    with socket.create_connection((web.host, web.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(server: ModelServer, start_web: StartWeb, number: int) -> None:
    web = start_web("--target", server.target)
    assert web.call("/v2/health/ready").status == 200

    web.process.send_signal(number)
    _, rest = web.process.communicate(timeout=30)

    assert web.process.returncode == 0, rest
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopped"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "0.0.0.0:0"], "--allow-plaintext"),
        (["--tls-cert", "a.pem"], "go together"),
        (["--listen", "nowhere"], "host:port"),
        (["--allow-origin", "evil.example"], "https://NAME"),
        (["--max-connections", "1e9"], "max-connections"),
    ],
)
def test_settings_that_make_no_sense_are_wrong_usage(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_taken_port_is_an_error(web: Web) -> None:
    command = [sys.executable, "-P", "-m", "mlpserve_web", "--listen", f"{web.host}:{web.port}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run.returncode == 1
    assert "cannot listen on" in run.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_answers_are_not_held_back_for_larger_packets(host: str) -> None:
    with _listen(host, 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        # What asyncio asks before it turns Nagle's algorithm off.
        assert accepted.proto == socket.IPPROTO_TCP
        accepted.close()


@pytest.mark.parametrize("by", ["flags", "variables"])
def test_it_serves_https(
    by: str,
    server: ModelServer,
    start_web: StartWeb,
    authority: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate, key = authority.issue()
    flags = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    if by == "variables":  # which a client would take for its own
        monkeypatch.setenv("MLPSERVE_TLS_CERT", str(certificate))
        monkeypatch.setenv("MLPSERVE_TLS_KEY", str(key))
        flags = []
    web = start_web("--target", server.target, *flags)
    context = ssl.create_default_context(cafile=authority.ca)

    connection = http.client.HTTPSConnection("localhost", web.port, context=context, timeout=30)
    connection.request("GET", "/v2/health/ready")

    assert web.address.startswith("https://")
    assert connection.getresponse().status == 200
    connection.close()
