"""TLS and mutual TLS: who is let in, and certificates that change under load."""

import json
import logging
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.support.authority import Authority, NewAuthority, Pair, fingerprint, shown
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Run, Serve
from tests.support.waiting import eventually

REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
REFUSED = "new credentials refused, the old ones stay"

Shown: TypeAlias = tuple[Path, Path]  # a certificate and its key


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Pair:
    return Pair(tmp_path, *authority.issue())


class Call(Protocol):
    """Calls over a new connection: whom to trust, which certificate to show, how long to wait."""

    def __call__(
        self, address: str, trust: Authority = ..., show: Shown | None = None, wait: float = 5
    ) -> int | grpc.StatusCode:
        """Return the version that answered, or the code."""
        ...


class Started(Protocol):
    """Starts a server that serves version 1; calls show it this certificate."""

    def __call__(self, show: Any = None, **changes: Any) -> str:
        """Return its address; `changes` are to its settings."""
        ...


@pytest.fixture
def call(authority: Authority) -> Call:
    """Call over a new connection; gives the version that answered, or the code."""

    def call(
        address: str,
        trust: Authority = authority,
        show: Shown | None = None,
        wait: float = 5,
    ) -> int | grpc.StatusCode:
        cert, key = (file.read_bytes() for file in show) if show else (None, None)
        credentials = grpc.ssl_channel_credentials(trust.ca.read_bytes(), key, cert)
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.ssl_target_name_override", "localhost"),
        ]
        with grpc.secure_channel(address, credentials, options) as channel:
            try:
                answer = PredictionServiceStub(channel).Predict(REQUEST, timeout=wait)
            except grpc.RpcError as error:
                return error.code()
        return answer.model.version

    return call


@pytest.fixture
def started(publish: Publish, serve: Serve, call: Call) -> Started:
    """Start a server that serves version 1 and give its address."""

    def started(show: Shown | None = None, **changes: Any) -> str:
        publish()
        address = serve(**changes).address
        eventually(lambda: call(address, show=show) == 1)
        return address

    return started


@pytest.mark.parametrize("rsa", [False, True])
def test_an_encrypted_call_is_answered_and_plain_text_is_not(
    started: Started, authority: Authority, tmp_path: Path, call: Call, rsa: bool
) -> None:
    pair = Pair(tmp_path, *authority.issue(rsa=rsa))
    address = started(**pair.fields)
    assert call(address) == 1
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        PredictionServiceStub(channel).Predict(REQUEST, timeout=1)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_versions_of_tls_before_1_2_are_refused(started: Started, pair: Pair) -> None:
    host, _, port = started(**pair.fields).rpartition(":")

    def agreed(newest: ssl.TLSVersion) -> str | None:
        caller = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        caller.check_hostname, caller.verify_mode = False, ssl.CERT_NONE
        caller.set_alpn_protocols(["h2"])
        caller.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL itself would offer no earlier version
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            caller.minimum_version, caller.maximum_version = ssl.TLSVersion.TLSv1, newest
        with (
            socket.create_connection((host, int(port)), timeout=10) as connection,
            caller.wrap_socket(connection) as secured,
        ):
            return secured.version()

    assert agreed(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):  # by the server
        agreed(ssl.TLSVersion.TLSv1_1)


def test_callers_refuse_a_certificate_that_is_foreign_or_has_expired(
    started: Started, authority: Authority, new_authority: NewAuthority, pair: Pair, call: Call
) -> None:
    address = started(**pair.fields)
    assert call(address, trust=new_authority(), wait=1) == grpc.StatusCode.UNAVAILABLE
    expired = authority.issue(days=-1)
    pair.put(*expired)
    eventually(lambda: shown(address) == fingerprint(expired[0]))
    assert call(address, wait=1) == grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_lets_in_whom_the_authority_knows_and_nobody_else(
    started: Started, authority: Authority, new_authority: NewAuthority, pair: Pair, call: Call
) -> None:
    ours, theirs = new_authority(), new_authority()
    mine = ours.issue("caller")
    address = started(mine, **pair.fields, tls_client_ca=ours.ca)
    assert call(address, show=mine) == 1
    for wrong in (None, theirs.issue("caller"), authority.issue(), ours.issue("caller", days=-1)):
        assert call(address, show=wrong, wait=1) == grpc.StatusCode.UNAVAILABLE, wrong
    assert call(address, show=ours.issue("another")) == 1


def test_callers_of_another_authority_are_let_in_once_it_stands_in_the_file(
    started: Started, new_authority: NewAuthority, pair: Pair, call: Call, tmp_path: Path
) -> None:
    first, second = new_authority(), new_authority()
    old, new = first.issue("caller"), second.issue("caller")
    trusted = tmp_path / "callers.pem"
    pair.write(trusted, first.ca.read_bytes())
    address = started(old, **pair.fields, tls_client_ca=trusted)
    assert call(address, show=new, wait=1) == grpc.StatusCode.UNAVAILABLE
    pair.write(trusted, first.ca.read_bytes() + second.ca.read_bytes())
    eventually(lambda: call(address, show=new) == 1)
    assert call(address, show=old) == 1
    pair.write(trusted, second.ca.read_bytes())
    eventually(lambda: call(address, show=old, wait=1) == grpc.StatusCode.UNAVAILABLE)
    assert call(address, show=new) == 1


def test_connections_that_never_say_hello_keep_nobody_from_connecting(
    started: Started, pair: Pair, call: Call
) -> None:
    address = started(**pair.fields)
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for number in range(300):
            mute = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            if number % 2:
                mute.sendall(b"\x16\x03\x01")  # the beginning of one
        assert [call(address) for _ in range(5)] == [1] * 5


@ANY_TRANSPORT  # both have the certificates of one gRPC server
@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_addresses_are_encrypted_and_follow_alike(
    publish: Publish,
    run: Run,
    authority: Authority,
    new_authority: NewAuthority,
    pair: Pair,
    call: Call,
    tmp_path: Path,
    workers: str,
) -> None:
    publish()
    listen = f"127.0.0.1:0,127.0.0.1:0,unix:{tmp_path}/socket"
    server = run("--listen", listen, "--workers", workers, *pair.flags)
    addresses = server.event("listening")["address"].split(",")
    addresses = [*addresses[:2], f"unix:{tmp_path}/socket"]
    eventually(lambda: all(call(address) == 1 for address in addresses))
    later = new_authority()
    pair.put(*later.issue())
    eventually(lambda: all(call(address, trust=later, wait=1) == 1 for address in addresses))


class Callers:
    """Threads that open a connection for every call, and record the failures."""

    def __init__(self, call: Callable[[], Any], count: int = 2) -> None:
        self.answered = 0
        self.failed: list[Any] = []
        self._call = call
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._done.is_set():
            result = self._call()
            if result == 1:
                self.answered += 1
            else:
                self.failed.append(result)

    def end(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


@ANY_TRANSPORT  # both have the certificates of one gRPC server
@pytest.mark.parametrize(
    ("workers", "step", "mutual", "rotations"),
    [
        ("1", "put", False, 20),
        pytest.param("1", "put", False, 100, marks=pytest.mark.slow),
        pytest.param("2", "turn_to", True, 100, marks=pytest.mark.slow),
    ],
)
def test_rotations_under_load_fail_no_connection(
    publish: Publish,
    run: Run,
    authority: Authority,
    pair: Pair,
    call: Call,
    workers: str,
    step: str,
    mutual: bool,
    rotations: int,
) -> None:
    publish()
    mine = authority.issue("caller") if mutual else None
    only = ["--tls-client-ca", str(authority.ca)] if mutual else []
    pairs = [authority.issue() for _ in range(10)]
    getattr(pair, step)(*pairs[-1])
    server = run("--workers", workers, "--poll-seconds", "0.01", *pair.flags, *only)
    address = server.event("listening")["address"]
    for _ in range(int(workers)):
        server.event("serving")
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(server.process.stderr or ()))
    reader.start()
    callers = Callers(lambda: call(address, show=mine))
    seen, looks = set(), 1 if workers == "1" else 8
    try:
        for number in range(rotations):
            getattr(pair, step)(*pairs[number % len(pairs)])
            latest = fingerprint(pair.cert)
            # The kernel chooses a worker for each connection.
            eventually(lambda: all(shown(address) == latest for _ in range(looks)))  # noqa: B023
            seen.add(latest)
    finally:
        callers.end()
    server.process.terminate()
    assert server.process.wait(timeout=30) == 0
    reader.join()
    events = [json.loads(line) for line in log]
    changes = [event for event in events if event["event"] == "credentials in force"]
    print(f"{callers.answered} connections, {len(changes)} changes, {len(callers.failed)} failed")
    assert callers.failed == []
    assert callers.answered > rotations
    assert seen == {fingerprint(cert) for cert, _ in pairs}
    assert len(changes) >= 0.9 * rotations * int(workers)
    assert {event["sha256"] for event in changes} == seen
    if step == "turn_to":  # one file after the other is seen by halves when the machine is busy
        assert not any(event["event"] == REFUSED for event in events)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(r)["reason"] for r in caplog.records if r.getMessage() == REFUSED]


def logged_of_files(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "mlpserve_server.security.files"]


def test_half_of_a_new_pair_keeps_the_old_one_and_is_logged_once(
    started: Started,
    authority: Authority,
    pair: Pair,
    call: Call,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = started(**pair.fields)
    old = fingerprint(pair.cert)
    caplog.set_level(logging.INFO)
    caplog.clear()
    cert, key = authority.issue()
    halves = (cert.read_bytes()[:300], b"", cert.read_bytes())  # the last: with the key of the old
    for number, half in enumerate(halves, 1):
        pair.write(pair.cert, half)
        eventually(lambda: len(logged_of_files(caplog)) >= number)  # noqa: B023  # called at once
        time.sleep(0.2)  # ten looks
        assert logged_of_files(caplog) == [REFUSED] * number
        assert str(pair.cert) in refusals(caplog)[-1]
        assert shown(address) == old
        assert call(address) == 1
    pair.put(key=key)
    eventually(lambda: shown(address) == fingerprint(cert))
    assert call(address) == 1
    assert len(refusals(caplog)) == len(halves)
    assert b"".join(key.read_bytes().split(b"\n")[1:2]).decode() not in caplog.text


def test_files_that_vanish_keep_what_was_in_them(
    started: Started, pair: Pair, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    address = started(**pair.fields)
    pair.cert.unlink()
    pair.key.unlink()
    eventually(lambda: len(refusals(caplog)) == 1)
    assert "cannot read" in refusals(caplog)[0]
    assert call(address) == 1


@pytest.mark.parametrize("kind", ["P-521", "Ed25519"])
def test_a_key_that_grpc_clients_refuse_is_not_put_in_force(
    kind: str,
    started: Started,
    authority: Authority,
    pair: Pair,
    call: Call,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = started(**pair.fields)
    old = fingerprint(pair.cert)
    pair.put(*authority.issue_unusable(kind))
    # The files come one after the other: half of the pair may be refused first.
    wanted = "expected RSA, or ECDSA on P-256 or P-384"
    eventually(lambda: wanted in str(refusals(caplog)) or shown(address) != old)
    assert shown(address) == old, "put in force"
    assert call(address) == 1
    pair.put(*authority.issue(rsa=True))
    eventually(lambda: shown(address) == fingerprint(pair.cert))
    assert call(address) == 1


@ANY_TRANSPORT
@pytest.mark.parametrize(
    "damage", ["unusable", "missing", "garbage", "other key", "open", "encrypted", "ca"]
)
def test_a_server_with_wrong_files_does_not_start_and_says_why(
    run: Run, authority: Authority, pair: Pair, tmp_path: Path, damage: str
) -> None:
    ca = authority.ca
    expected = "are not a certificate and its key"
    if damage == "unusable":
        pair.put(*authority.issue_unusable("P-521"))
        expected = "expected RSA, or ECDSA on P-256 or P-384"
    elif damage == "missing":
        pair.cert.unlink()
        expected = f"cannot read {pair.cert}: No such file or directory"
    elif damage == "garbage":
        pair.cert.write_text("no certificate")
    elif damage == "other key":
        pair.put(key=authority.issue()[1])
        expected = "key values mismatch"
    elif damage == "open":
        pair.key.chmod(0o644)
        expected = f"{pair.key} is open to every user of this machine: chmod 600"
    elif damage == "encrypted":
        loaded: Any = load_pem_private_key(pair.key.read_bytes(), None)
        protection = BestAvailableEncryption(b"a passphrase")
        pair.key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
        expected = "the key is encrypted: give one without a passphrase"
    else:
        ca = tmp_path / "ca.pem"
        ca.write_text("no authority")
        expected = f"{ca} has no PEM certificates"
    server = run(*pair.flags, "--tls-client-ca", str(ca))
    assert expected in server.event("cannot start")["reason"]
    assert server.process.wait(timeout=20) == 1
