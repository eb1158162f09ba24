"""Publishing to a store that fails at any request: a whole version, or none and a clear error."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from mlpserve_model import CHAMPION, Store, StoreError
from mlpserve_model.store import object_backend as bucket
from tests.support.object_store import Proxy, PublishTo

KINDS = ("503", "reset", "lost answer", "partial", "hang")


def assert_whole(store: Store, acknowledged: set[int]) -> None:
    """What a reader sees is whole, and nothing that was acknowledged is missing."""
    versions = store.versions()
    assert acknowledged <= set(versions)
    for version in versions[-2:]:
        store.verify(version)
    history = store.history()
    assert set(versions) <= {e["version"] for e in history if e["event"] == "publish"}
    promoted = {e["version"] for e in history if e["event"] == "promote"}
    assert store.resolve(CHAMPION) in promoted & set(versions)


def at(place: int, kind: str, lasting: bool) -> Callable[[str], str | None]:
    """Go wrong with the request at this place, and with all that follow if it is lasting."""
    count = iter(range(10**6))

    def fault(request: str) -> str | None:
        now = next(count)
        return kind if now == place or (lasting and now > place) else None

    return fault


def requests_of_publishing(proxy: Proxy, publish: PublishTo, store: Store) -> list[str]:
    publish(to=store)
    proxy.requests.clear()
    publish(to=store)
    return list(proxy.requests)


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_fails_leaves_a_whole_version_or_none(
    kind: str,
    lasting: bool,
    address: str,
    proxy: Proxy,
    publish: PublishTo,
    short_lease: float,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "250ms" if kind == "hang" else "5s")
    store, reader = Store(address, "tiny"), Store(address, "tiny")
    requests = requests_of_publishing(proxy, publish, store)
    acknowledged, outcomes, messages = {1, 2}, Counter[str](), list[str]()
    first = KINDS.index(kind)  # every fifth place, and other places for another kind
    for place in range(first, len(requests), 5):
        proxy.fault = at(place, kind, lasting)
        try:
            acknowledged.add(publish(to=store))
            outcomes["acknowledged"] += 1
        except StoreError as error:
            outcomes["refused"] += 1
            messages.append(str(error))
        proxy.fault = lambda request: None
        assert_whole(reader, acknowledged)
    assert all(len(said) < 500 and "\n" not in said for said in messages)
    for version in reader.versions():
        reader.verify(version)
    assert publish(to=store) == max(reader.versions())  # works, and is above all others
    print(f"\n{kind}, {'lasting' if lasting else 'once'}: {dict(outcomes)}")
    if lasting:
        assert outcomes["refused"] > outcomes["acknowledged"]  # the last request frees the lock
    if not lasting and kind in ("503", "reset", "lost answer"):
        assert outcomes["refused"] == 0  # repeated, or looked up


def test_a_write_whose_connection_is_lost_is_sent_again(
    store: Store, publish: PublishTo, proxy: Proxy
) -> None:
    lost = set[str]()

    def once(request: str) -> str | None:
        if not request.startswith("PUT") or request in lost:
            return None
        lost.add(request)
        return "reset"

    proxy.fault = once
    assert publish() == 1
    assert {"PUT tiny/1/claim.json", "PUT tiny/1/manifest.json", "PUT tiny/aliases.json"} <= lost
    assert_whole(store, {1})


def test_a_removal_whose_connection_is_lost_is_sent_again(
    store: Store, publish: PublishTo, proxy: Proxy
) -> None:
    for _ in range(3):
        publish()
    removals = itertools.count()

    def every_other(request: str) -> str | None:
        return "reset" if request == "POST ?delete" and next(removals) % 2 == 0 else None

    proxy.fault = every_other
    assert store.prune(1) == [1, 2]
    assert next(removals) >= 2 * 2 * 3  # of two versions with three files or more, each twice
    assert_whole(store, {3})


def test_a_refused_publication_is_one_clear_line(
    store: Store, publish: PublishTo, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    proxy.fault = lambda request: "503" if request.startswith("PUT") else None
    with pytest.raises(StoreError) as caught:
        publish()
    said = str(caught.value)
    assert said.startswith(f"cannot write to {store.root}/tiny: ")
    assert "503 Service Unavailable" in said
    assert "a secret" not in said


def test_what_a_failed_publication_leaves_is_swept_once_it_is_old(
    address: str,
    store: Store,
    proxy: Proxy,
    publish: PublishTo,
    short_lease: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(to=Store(address, "tiny"))
    proxy.fault = lambda request: "503" if request.endswith("manifest.json") else None
    with pytest.raises(StoreError):
        publish(to=Store(address, "tiny"))
    proxy.fault = lambda request: None
    left = [entry.name for entry in store._backend._objects.list("2")]  # type: ignore[attr-defined]
    assert sorted(left) == ["2/claim.json", "2/golden.npz", "2/model.npz"]
    monkeypatch.setattr(bucket, "LITTER_SECONDS", -1.0)
    assert publish(to=Store(address, "tiny")) == 3  # its number is not given out again
    assert store.verify(3)
    assert store._backend._objects.list("2") == []  # type: ignore[attr-defined]
    events = [e["version"] for e in store.history() if e["event"] == "publish"]
    assert events == [1, 2, 3]  # each says what its writer was about to do
