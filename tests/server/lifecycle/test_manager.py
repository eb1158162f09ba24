"""What the manager keeps, tries again and never drops."""

import errno
import gc
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pytest

from mlpserve_model import Store, Verdict
from mlpserve_server.errors import ModelNotFound, ModelUnavailable
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from mlpserve_server.transport.direct import DirectTransport
from mlpserve_server.transport.grpc_core import unsupported
from mlpserve_server.transport.services import TransportError
from mlpserve_server.transport.standard import StandardTransport
from tests.support.faults import fail_at
from tests.support.publishing import Publish


def version_of(manager: ModelManager) -> int | None:
    return manager.current.manifest.version if manager.current else None


@pytest.fixture
def loads(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions that are read, in order."""
    read: list[int] = []
    original = store.load

    def load(version: int) -> Any:
        read.append(version)
        return original(version)

    monkeypatch.setattr(store, "load", load)
    return read


def test_a_damaged_version_is_held_back_after_every_try(
    store: Store, publish: Publish, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_server.lifecycle.refusals._RETRY_SECONDS", 1000)
    first, second = publish(), publish(seed=1)
    (store.path(second) / "model.npz").write_bytes(b"damaged")
    manager = ModelManager(Loader(store, 3), "champion")
    for _ in range(20):
        manager.poll()
        with pytest.raises(ModelUnavailable, match=r"model\.npz has 7 bytes"):
            manager.get(second)
    assert version_of(manager) == first
    assert loads == [second, first]


def test_the_manifest_of_each_rejected_version_is_read_once(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of more than a server usually meets; what is kept of them goes with them."""
    monkeypatch.setattr("mlpserve_server.lifecycle.loader._MANY_VERDICTS", 2)
    monkeypatch.setattr("mlpserve_server.lifecycle.loader._COMPARE_SECONDS", 0)
    publish()
    for _ in range(4):
        publish(promote=False, verdict=Verdict("REJECTED", ("worse",)))
    loader = Loader(store)
    manager = ModelManager(loader, "latest")
    manager.poll()
    read: list[int] = []
    original = store.manifest

    def manifest(version: int) -> Any:
        read.append(version)
        return original(version)

    monkeypatch.setattr(store, "manifest", manifest)
    for _ in range(3):
        manager.poll()
    assert version_of(manager) == 1
    assert len(loader._verdicts) == 5
    assert [version for version in read if version > 1] == []
    store.prune(2)
    manager.poll()
    assert len(loader._verdicts) == 3


def test_versions_that_came_and_went_leave_nothing_in_memory(
    store: Store, publish: Publish
) -> None:
    manager = ModelManager(Loader(Store(store.folder.parent, store.model), 3), "champion")

    def objects_after(versions: int) -> int:
        for _ in range(versions):
            version = publish()
            manager.poll()
            assert version_of(manager) == version
        return objects_of(manager)

    before = objects_after(55)  # more than the events that are read of a history
    assert abs(objects_after(10) - before) < 10


def objects_of(root: object) -> int:
    """Return the number of objects that an object refers to, code aside."""
    code = (type, ModuleType, FunctionType, BuiltinFunctionType)
    found, left = dict[int, object](), [root]
    while left:
        for each in gc.get_referents(left.pop()):
            if not isinstance(each, code) and id(each) not in found:
                found[id(each)] = each
                left.append(each)
    return len(found)


def test_a_damaged_version_is_tried_again_after_a_while(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_server.lifecycle.refusals._RETRY_SECONDS", 0)
    version = publish()
    path = store.path(version) / "model.npz"
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    manager = ModelManager(Loader(store, 3), "champion")
    assert not manager.poll()
    path.write_bytes(good)
    assert manager.poll()


@pytest.mark.parametrize("file", ["manifest.json", "model.npz", "golden.npz"])
def test_a_damaged_version_that_is_put_right_answers_at_the_next_poll(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr("mlpserve_server.lifecycle.refusals._RETRY_SECONDS", 1000)
    first, second = publish(), publish(seed=1)
    path = store.path(second) / file
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    manager = ModelManager(Loader(store, 3), "champion")
    manager.poll()
    assert version_of(manager) == first
    path.write_bytes(good)
    manager.poll()
    assert version_of(manager) == second


def test_a_version_that_cannot_be_read_leaves_the_one_before_it(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(), publish(seed=1)
    fail_at(monkeypatch, store.path(second) / "model.npz", errno.EIO)
    manager = ModelManager(Loader(store, 3), "champion")
    manager.poll()
    assert version_of(manager) == first


def test_aliases_outlive_a_store_that_vanishes(store: Store, publish: Publish) -> None:
    version = publish()
    manager = ModelManager(Loader(store, 3), "champion")
    manager.poll()
    store.folder.rename(store.folder.with_name("elsewhere"))
    manager.poll()
    assert manager.get(alias="champion").manifest.version == version
    with pytest.raises(ModelNotFound, match="known are champion"):
        manager.get(alias="challenger")


def test_standby_keeps_as_many_versions_as_it_says_beside_the_served_one(
    store: Store, publish: Publish, loads: list[int]
) -> None:
    manager = ModelManager(Loader(store, 2), "champion")
    for seed in range(3):
        publish(seed=seed)
        manager.poll()
    store.move_alias("champion", 1, expected=3, event="rollback", reason="test")
    manager.poll()
    assert version_of(manager) == 1
    before = len(loads)
    assert manager.get(2).manifest.version == 2
    assert manager.get(3).manifest.version == 3
    assert len(loads) == before


def test_auto_falls_back_to_the_standard_transport_and_direct_says_why_it_cannot(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(store=store.folder.parent, listen=("127.0.0.1:0",), drain_seconds=0)
    assert unsupported() is None
    with Server(settings) as server:
        assert isinstance(server._transport, DirectTransport)
    monkeypatch.setattr("mlpserve_server.transport.grpc_core.SUPPORTED", ((9, 0), (9, 1)))
    with Server(settings) as server:
        assert type(server._transport) is StandardTransport
    assert "using the standard transport" in caplog.text
    with pytest.raises(TransportError, match=r"made for grpcio from 9\.0 and below 9\.1"):
        Server(replace(settings, transport="direct"))
