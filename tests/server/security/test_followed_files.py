"""Certificates and tokens are followed whatever happens to their files."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub
from tests.support.authority import Authority, Pair, fingerprint, shown
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Serve
from tests.support.waiting import eventually

pytestmark = ANY_TRANSPORT  # what follows files knows of none
REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
TOKEN, OTHER = "the-first-token-of-all", "another-token-of-ours"
MISLEADING = {
    "a comment that is not ASCII": "# für Köln\n".encode("latin1"),
    "a block in a comment": "# -----BEGIN CERTIFICATE-----\n# Öl\n".encode(),
    "a block within a line": b"old: -----BEGIN CERTIFICATE----- no -----END CERTIFICATE-----\n",
    "attributes": b"Bag Attributes\n    friendlyName: \xff\nsubject=/CN=localhost\n",
}


def shows(address: str, cert: Path) -> bool:
    return shown(address) == fingerprint(cert)


@pytest.mark.parametrize("prefix", MISLEADING.values(), ids=MISLEADING)
def test_a_certificate_that_openssl_takes_is_taken_over_and_the_next_one_too(
    publish: Publish, serve: Serve, authority: Authority, tmp_path: Path, prefix: bytes
) -> None:
    publish()
    pair = Pair(tmp_path, *authority.issue())
    address = serve(**pair.fields).address
    for before in (prefix, b"", prefix):
        cert, key = authority.issue()
        new = tmp_path / "new.pem"
        new.write_bytes(before + cert.read_bytes())
        pair.put(new, key)
        eventually(shows, address, cert)


def put(path: Path, *tokens: str) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text("\n".join(tokens))
    new.replace(path)


def code(address: str, token: str) -> str:
    with grpc.insecure_channel(address) as channel:
        metadata = (("authorization", f"Bearer {token}"),)
        try:
            PredictionServiceStub(channel).Predict(REQUEST, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            failed: Any = error
            return str(failed.code().name)
    return "OK"


def test_tokens_are_followed_after_their_file_vanished_at_every_moment(
    publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    publish()
    path, aside = tmp_path / "tokens", tmp_path / "aside"
    put(path, TOKEN, OTHER)
    address = serve(token_file=path, poll_seconds=0.01).address
    eventually(lambda: code(address, OTHER) == "OK")
    for _ in range(200):  # at another moment of a poll each time
        path.touch()
        path.rename(aside)
        aside.rename(path)
        time.sleep(0.003)
    put(path, TOKEN)
    eventually(lambda: code(address, OTHER) == "UNAUTHENTICATED")
    assert code(address, TOKEN) == "OK"


@pytest.mark.parametrize("error", [OSError("gone"), UnicodeEncodeError("a", "b", 0, 1, "c")])
def test_a_look_that_fails_is_in_the_log_and_in_the_metrics_and_the_next_one_comes(
    publish: Publish, serve: Serve, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, error: Exception,
) -> None:  # fmt: skip
    publish()
    stubs = serve(metrics_listen="127.0.0.1:0")
    eventually(stubs.serving)
    failing = threading.Event()
    failing.set()
    poll = stubs.manager.poll

    def fail() -> bool:
        if failing.is_set():
            raise error
        return poll()

    monkeypatch.setattr(stubs.manager, "poll", fail)
    failures = ("mlpserve_follower_failures_total",)
    eventually(lambda: stubs.scrape()(*failures, follower="store") > 2)
    assert stubs.serving(), "what is in memory still answers"
    failing.clear()
    second = publish(seed=1)
    eventually(lambda: stubs.prediction.Predict(REQUEST).model.version == second)
    said = [r for r in caplog.records if r.getMessage() == "a follower failed"]
    assert [vars(r)["follower"] for r in said] == ["store"]


@pytest.mark.parametrize("follower", ["store", "tokens"])
def test_a_follower_that_dies_is_a_metric_and_a_line_in_the_log_and_not_ready(
    publish: Publish, serve: Serve, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, follower: str,
) -> None:  # fmt: skip
    publish()
    put(tmp_path / "tokens", TOKEN)
    stubs = serve(token_file=tmp_path / "tokens", metrics_listen="127.0.0.1:0")
    eventually(stubs.serving)
    alive = ("mlpserve_follower_alive",)
    eventually(lambda: stubs.scrape()(*alive, follower=follower) == 1)

    def die() -> None:
        raise SystemExit(1)

    if follower == "store":
        monkeypatch.setattr(stubs.manager, "poll", die)
    else:
        assert stubs.server
        (tokens,) = stubs.server._access.files
        monkeypatch.setattr(tokens, "_stat", die)
    eventually(lambda: not stubs.serving())
    eventually(lambda: stubs.scrape()(*alive, follower=follower) == 0)
    assert stubs.scrape()("mlpserve_workers_ready") == 0
    said = [r for r in caplog.records if r.getMessage() == "a follower ended"]
    assert [(vars(r)["follower"], r.levelno) for r in said] == [(follower, logging.ERROR)]
