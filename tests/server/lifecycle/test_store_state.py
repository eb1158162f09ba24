"""When a poll has to read the aliases, and when their stamp says enough."""

import pytest

from mlpserve_model import Store, StoredModel, StoreError
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.store_state import StoreState
from tests.support.publishing import Publish


@pytest.fixture
def state(store: Store, publish: Publish) -> StoreState:
    """A store with a version, of which a poll has seen the stamp."""
    publish()
    state = StoreState(store)
    assert not state.is_unchanged()
    state.succeeded()
    return state


def test_a_stamp_that_was_seen_is_unchanged_until_an_alias_moves(
    state: StoreState, publish: Publish
) -> None:
    assert state.is_unchanged()
    publish(seed=1)
    assert not state.is_unchanged()
    state.succeeded()
    assert state.is_unchanged()


def test_after_a_fault_the_aliases_are_read_again(state: StoreState) -> None:
    state.failed(StoreError("the disk is slow"))
    assert not state.is_unchanged()
    state.succeeded()
    assert state.is_unchanged()


def test_the_aliases_are_read_from_time_to_time_whatever_their_stamp(
    state: StoreState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_server.lifecycle.store_state._READ_SECONDS", -1)
    assert not state.is_unchanged()


def test_polls_of_a_store_that_does_not_change_read_nothing(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    manager = ModelManager(Loader(store, 0), "champion")
    assert manager.poll()
    monkeypatch.setattr(store, "aliases", lambda: pytest.fail("the aliases were read"))
    monkeypatch.setattr("mlpserve_server.lifecycle.store_state._READ_SECONDS", 1000)
    assert not manager.poll()


def test_while_the_selected_version_does_not_answer_every_poll_reads(
    store: Store, publish: Publish
) -> None:
    first = publish()
    manager = ModelManager(Loader(store, 0), "challenger")
    assert not manager.poll()
    assert not manager.poll()
    store.move_alias("challenger", first, expected=None, event="promote", reason="a test")
    assert manager.poll()


def test_a_poll_that_ends_by_an_unforeseen_failure_has_seen_nothing(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    manager = ModelManager(Loader(store, 0), "champion", stamp=lambda: len(store.aliases()))
    assert manager.poll()
    store.move_alias("other", 1, expected=None, event="promote", reason="a test")

    def fail(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(manager.loader, "unreplaced", fail)
        with pytest.raises(MemoryError):
            manager.poll()
    assert not manager.is_settled()
    manager.poll()
    assert manager.aliases == {"champion": 1, "other": 1}
    assert manager.is_settled()


def test_a_damaged_version_is_tried_again_after_a_while_alone_whatever_says_what_changed(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.path(publish()) / "model.npz").write_bytes(b"damaged")
    manager = ModelManager(Loader(store, 0), "champion", stamp=lambda: "the same")
    tried: list[int] = []
    load = store.load

    def count(version: int) -> StoredModel:
        tried.append(version)
        return load(version)

    monkeypatch.setattr(store, "load", count)
    for _ in range(3):
        manager.poll()
    assert tried == [1]
