"""A server that follows an object store, and one that starts without it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve.v1 import model_pb2, prediction_pb2_grpc
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from mlpserve_model.process.choices import VersionChoice
from mlpserve_model.store.location import parse_location
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.object_store import DRAFT, Proxy, PublishTo
from tests.support.places import BucketPlace
from tests.support.publishing import publish_to
from tests.support.waiting import eventually

INSTANCE = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(range(12)))
READINESS = health_pb2.HealthCheckRequest(service="mlpserve.v1.PredictionService")


class Running:
    """A server, and what it says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channel = grpc.insecure_channel(server.address)
        self.prediction = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def ready(self) -> bool:
        status = self.health.Check(READINESS, timeout=5).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)

    def version(self, **selector: Any) -> int:
        request = pb.PredictRequest(instance=INSTANCE, model=model_pb2.ModelSelector(**selector))
        return int(self.prediction.Predict(request, timeout=10).model.version)

    def serves_model(self, name: str, version: int) -> bool:
        try:
            return self.version(name=name) == version
        except grpc.RpcError:
            return False

    def serves(self, version: int) -> bool:
        return self.ready() and self.version() == version

    def stop(self) -> None:
        self.channel.close()
        self.server.stop()


class ServeBucket(Protocol):
    """Starts a server over the bucket."""

    def __call__(self, **changes: Any) -> Running: ...


@pytest.fixture
def serve(address: str, tmp_path: Path) -> Iterator[ServeBucket]:
    running = []

    def serve(**changes: Any) -> Running:
        settings: dict[str, Any] = {
            "store": parse_location(address),
            "model": ("tiny",),
            "listen": ("127.0.0.1:0",),
            "poll_seconds": 0.05,
            "drain_seconds": 0,
            "grace_seconds": 2,
            "cache_dir": tmp_path / "cache",
        }
        server = Server(Settings(**(settings | changes)))
        server.start()
        running.append(Running(server))
        return running[-1]

    yield serve
    for server in running:
        server.stop()


def fails(fault: str) -> Callable[[str], str]:
    return lambda request: fault


def works(request: str) -> None:
    """No fault."""


def test_a_promotion_is_followed_and_so_is_a_rollback(
    store: Store, publish: PublishTo, serve: ServeBucket
) -> None:
    publish()
    server = serve()
    eventually(server.ready)
    publish(seed=1)
    eventually(lambda: server.version() == 2)
    store.move_alias("champion", 1, expected=2, event="rollback", reason="test")
    eventually(lambda: server.version() == 1)
    assert server.version(version=2) == 2


@pytest.mark.parametrize(("serve_what", "most"), [("champion", 1), ("latest", 2), ("1", 1)])
def test_a_poll_that_finds_nothing_new_is_one_request_or_two(
    serve_what: str, most: int, publish: PublishTo, serve: ServeBucket, proxy: Proxy
) -> None:
    publish()
    server = serve(serve=VersionChoice(serve_what))
    eventually(server.ready)
    proxy.requests.clear()
    eventually(lambda: proxy.requests.count("GET tiny/aliases.json") >= 2)  # all is loaded by then
    proxy.requests.clear()
    eventually(lambda: proxy.requests.count("GET tiny/aliases.json") >= 5)
    polls = proxy.requests.count("GET tiny/aliases.json")
    assert len(proxy.requests) <= most * (polls + 1)


def test_a_poll_of_many_models_that_finds_nothing_new_is_one_request(
    address: str, serve: ServeBucket, proxy: Proxy
) -> None:
    names = [f"shop-{number}" for number in range(5)]
    stores = {name: Store(address, name) for name in names}
    for store in stores.values():
        publish_to(store, draft=DRAFT)
    server = serve(model=("shop-*",))
    eventually(lambda: all(server.serves_model(name, 1) for name in names))

    def listings() -> int:
        return proxy.requests.count("GET a listing")

    seen = listings()
    eventually(lambda: listings() >= seen + 2)  # all that was found has been read by then
    proxy.requests.clear()
    eventually(lambda: listings() >= 5)
    assert set(proxy.requests) == {"GET a listing"}
    # What changes is read, and nothing else is.
    proxy.requests.clear()
    publish_to(stores["shop-3"], seed=1, draft=DRAFT)
    eventually(lambda: server.serves_model("shop-3", 2))
    assert "GET shop-3/2/model.npz" in proxy.requests
    assert not [request for request in proxy.requests if "shop-4" in request]


@pytest.mark.parametrize("fault", ["500", "503", "reset", "hang"])
def test_a_store_that_fails_leaves_the_model_in_service_and_is_followed_again(
    fault: str,
    publish: PublishTo,
    serve: ServeBucket,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "300ms")
    publish()
    server = serve()
    eventually(server.ready)
    proxy.fault = fails(fault)
    eventually(lambda: "the store cannot be read" in caplog.text)
    for _ in range(20):
        assert server.version() == 1
        assert server.ready()
    proxy.fault = works
    publish(seed=1)
    eventually(lambda: server.version() == 2)


def test_a_slow_store_delays_no_answer_and_is_followed(
    publish: PublishTo, serve: ServeBucket, proxy: Proxy
) -> None:
    publish()
    server = serve()
    eventually(server.ready)
    slow = threading.Event()
    proxy.before_answer = lambda request: slow.wait(0.3)
    publish(seed=1)
    eventually(lambda: server.version() == 2)
    proxy.before_answer = lambda request: slow.wait(20)
    proxy.requests.clear()
    eventually(lambda: bool(proxy.requests))  # a poll that waits for its answer
    assert [server.version() for _ in range(20)] == [2] * 20
    assert server.ready()
    slow.set()


@pytest.mark.parametrize("torn", ["aliases.json", "2/manifest.json", "2/model.npz", "2/golden.npz"])
def test_what_arrives_in_part_is_never_served(
    torn: str, publish: PublishTo, serve: ServeBucket, proxy: Proxy
) -> None:
    publish()
    server = serve()
    eventually(server.ready)
    promoted = threading.Event()

    def note(request: str) -> None:
        if request == "PUT tiny/aliases.json":
            promoted.set()

    proxy.fault = note
    proxy.tears = lambda request: promoted.is_set() and request == f"GET tiny/{torn}"
    publish(seed=1)
    proxy.requests.clear()
    eventually(lambda: proxy.requests.count(f"GET tiny/{torn}") >= 5)
    assert server.version() == 1
    assert server.ready()
    proxy.tears = lambda request: False
    eventually(lambda: server.version() == 2)


@pytest.mark.parametrize("file", ["manifest.json", "model.npz", "golden.npz"])
def test_a_damaged_version_that_is_put_right_answers_at_the_next_poll(
    file: str,
    address: str,
    moto: int,
    store: Store,
    publish: PublishTo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlpserve_server.lifecycle.refusals._RETRY_SECONDS", 1000)
    publish()
    publish(seed=1)
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    place = BucketPlace(f"http://127.0.0.1:{moto}", bucket, f"{prefix}/tiny")
    good = place.read(f"2/{file}")
    place.write(f"2/{file}", good[:-1])
    manager = ModelManager(Loader(store, 3), "champion")
    manager.poll()
    assert manager.get().manifest.version == 1
    place.write(f"2/{file}", good)
    manager.poll()
    assert manager.get().manifest.version == 2


@pytest.mark.parametrize("fault", ["503", "reset", "hang"])
def test_a_start_without_the_store_serves_what_was_last_seen_of_it(
    fault: str,
    store: Store,
    publish: PublishTo,
    serve: ServeBucket,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "300ms")
    publish()
    publish(seed=1)
    store.move_alias("stable", 1, expected=None, event="promote", reason="test")
    first = serve()
    eventually(first.ready)
    assert (first.version(), first.version(alias="stable")) == (2, 1)
    first.stop()
    proxy.fault = fails(fault)
    second = serve()
    eventually(second.ready)
    assert "serving what was last seen of the store" in caplog.text
    assert (second.version(), second.version(alias="stable")) == (2, 1)
    proxy.fault = works
    publish(seed=2)
    eventually(lambda: second.version() == 3)


def test_a_start_without_store_and_cache_is_alive_and_waits(
    publish: PublishTo, serve: ServeBucket, proxy: Proxy
) -> None:
    publish()
    proxy.fault = fails("503")
    server = serve()
    assert not server.ready()
    proxy.fault = works
    eventually(server.ready)
    assert server.version() == 1


def test_a_damaged_cache_is_not_believed_and_made_anew(
    publish: PublishTo, serve: ServeBucket, proxy: Proxy, tmp_path: Path
) -> None:
    publish()
    first = serve()
    eventually(first.ready)
    first.stop()
    (weights,) = (tmp_path / "cache").rglob("1/model.npz")
    sound = weights.read_bytes()
    weights.write_bytes(bytes(len(sound)))
    proxy.requests.clear()
    second = serve()
    eventually(second.ready)
    assert "GET tiny/1/model.npz" in proxy.requests
    assert weights.read_bytes() == sound
    second.stop()
    proxy.requests.clear()
    third = serve()
    eventually(third.ready)
    assert "GET tiny/1/model.npz" not in proxy.requests


def test_a_damaged_cache_without_the_store_is_not_served(
    publish: PublishTo,
    serve: ServeBucket,
    proxy: Proxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish()
    first = serve()
    eventually(first.ready)
    first.stop()
    (weights,) = (tmp_path / "cache").rglob("1/model.npz")
    weights.write_bytes(bytes(weights.stat().st_size))
    proxy.fault = fails("reset")
    second = serve()

    def refused() -> bool:
        reasons = [str(getattr(record, "reason", "")) for record in caplog.records]
        return any("model.npz has the digest" in reason for reason in reasons)

    eventually(refused)
    assert not second.ready()


def test_a_cache_that_cannot_be_written_is_said_once_and_the_store_is_served(
    publish: PublishTo, serve: ServeBucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    publish()
    server = serve()
    eventually(server.ready)
    publish(seed=1)
    eventually(lambda: server.version() == 2)
    assert caplog.text.count("the cache cannot be written") == 1


def test_the_cache_keeps_what_is_aliased_and_a_few_more(
    publish: PublishTo, serve: ServeBucket, tmp_path: Path
) -> None:
    server = serve(standby=1)
    for seed in range(6):
        eventually(server.serves, publish(seed=seed))
    kept = sorted(int(path.parent.name) for path in (tmp_path / "cache").rglob("manifest.json"))
    assert kept == [4, 5, 6]


def test_a_store_that_hangs_does_not_keep_the_server_from_stopping(
    publish: PublishTo, serve: ServeBucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "600s")
    publish()
    server = serve()
    eventually(server.ready)
    hanging = threading.Event()

    def hang(request: str) -> str:
        hanging.set()
        return "hang"

    proxy.fault = hang
    assert hanging.wait(20)
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(30)  # half as long as the request hangs
    assert not stopping.is_alive()
