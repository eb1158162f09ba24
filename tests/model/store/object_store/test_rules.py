"""A store in S3 obeys the rules of a store on a volume."""

import json
import threading
from dataclasses import fields
from typing import Any

import numpy as np
import obstore
import pytest
from numpy.testing import assert_array_equal
from obstore.store import from_url

from mlpserve_model import (
    CHAMPION,
    AliasConflict,
    CorruptVersion,
    Draft,
    Store,
    StoreError,
    Verdict,
    VersionNotFound,
    initialise,
)
from mlpserve_model.cli import main
from mlpserve_model.store import object_backend as bucket
from tests.support.object_store import Proxy, PublishTo


def names(store: Store) -> list[str]:
    return sorted(entry.name for entry in store._backend._objects.list())  # type: ignore[attr-defined]


def overwrite(store: Store, name: str, data: bytes) -> None:
    """Put an object whatever is there, as no writer of ours does."""
    options: Any = {"client_options": {"allow_http": True}}
    obstore.put(from_url(f"{store.root}/{store.model}", **options), name, data)


def test_a_published_version_is_read_back_as_it_was(store: Store, draft: Draft) -> None:
    rng = np.random.default_rng(1)
    weights, golden = initialise(draft.network, rng), rng.random((4, 12), dtype=np.float32)
    published = store.publish(draft, Verdict("PROMOTED"), weights, golden, {"report.html": b"<p>"})
    model = store.load(1)
    assert model.manifest == published == store.manifest(1) == store.verify(1)
    assert all(getattr(published, f.name) == getattr(draft, f.name) for f in fields(Draft))
    for ours, read in zip(weights, model.weights, strict=True):
        assert_array_equal(ours.w, read.w)
        assert_array_equal(ours.b, read.b)


def test_objects_have_the_names_that_files_have_on_a_volume(
    store: Store, publish: PublishTo
) -> None:
    publish()
    assert names(store) == [
        ".lock", "1/claim.json", "1/golden.npz", "1/manifest.json", "1/model.npz",
        "aliases.json", "history.jsonl",
    ]  # fmt: skip


def test_an_empty_place_is_an_empty_store_and_reading_makes_nothing(store: Store) -> None:
    assert (store.versions(), store.aliases(), store.history()) == ([], {}, [])
    with pytest.raises(VersionNotFound, match="tiny has no version 1"):
        store.load(1)
    assert names(store) == []


def test_models_and_prefixes_share_a_bucket_and_nothing_else(
    address: str, publish: PublishTo
) -> None:
    others = [
        Store(address, "tiny2"),
        Store(f"{address}/tiny", "tiny"),
        Store(address[:-1], "tiny"),
    ]
    publish()
    assert [other.versions() for other in others] == [[], [], []]


def test_a_bucket_that_does_not_exist_is_an_error_and_no_empty_store(proxy: Proxy) -> None:
    store = Store("s3://no-such-bucket-anywhere/models", "tiny")
    for read in (store.versions, store.aliases, store.history, lambda: store.record("a", 1, "b")):
        with pytest.raises(StoreError, match="there is no such bucket"):
            read()


def test_an_alias_moves_only_from_where_it_was_seen(store: Store, publish: PublishTo) -> None:
    publish(promote=False), publish(promote=False)
    store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="first")
    with pytest.raises(AliasConflict, match="champion points at 1, expected None"):
        store.move_alias(CHAMPION, 2, expected=None, event="promote", reason="late")
    store.move_alias(CHAMPION, 2, expected=1, event="promote", reason="second")
    store.move_alias(CHAMPION, 1, expected=2, event="rollback", reason="back")
    assert store.aliases() == {"champion": 1}
    assert [(e["event"], e["version"]) for e in store.history()][2:] == [
        ("promote", 1), ("promote", 2), ("rollback", 1),
    ]  # fmt: skip


def test_pruning_keeps_the_newest_and_every_alias_and_leaves_no_object(
    store: Store, publish: PublishTo
) -> None:
    for _ in range(4):
        publish(promote=False)
    store.move_alias(CHAMPION, 2, expected=None, event="promote", reason="test")
    assert store.prune(1) == [1, 3]
    assert store.versions() == [2, 4]
    assert {name.split("/")[0] for name in names(store) if "/" in name} == {"2", "4"}
    assert publish() == 5


@pytest.mark.parametrize("name", ["model.npz", "golden.npz", "report.html"])
def test_an_object_that_was_overwritten_is_found_by_its_digest(
    name: str, store: Store, draft: Draft
) -> None:
    weights = initialise(draft.network, np.random.default_rng(0))
    store.publish(
        draft, Verdict("PROMOTED"), weights, np.ones((2, 12), np.float32), {"report.html": b"<p>"}
    )
    overwrite(store, f"1/{name}", bytes(store.manifest(1).files[name].size))
    with pytest.raises(CorruptVersion, match=f"{name} has the digest"):
        store.verify(1)


def test_an_object_larger_than_it_may_be_is_refused_before_it_is_read(
    store: Store, publish: PublishTo
) -> None:
    publish()
    overwrite(store, "1/model.npz", bytes(10**6))
    with pytest.raises(CorruptVersion, match=r"model\.npz has 1000000 bytes, expected at most"):
        store.load(1)
    overwrite(store, "1/manifest.json", b" " * (2**20 + 1))
    with pytest.raises(CorruptVersion, match=r"manifest\.json has 1048577 bytes"):
        store.manifest(1)


def test_claims_that_never_became_versions_are_swept_when_they_are_old(
    store: Store, address: str, publish: PublishTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    store._backend.claim(above=0)
    store._backend.write("2/model.npz", b"half")
    assert store.versions() == [1]
    assert publish(seed=1) == 3
    assert "2/claim.json" in names(store)
    monkeypatch.setattr(bucket, "LITTER_SECONDS", -1.0)
    assert publish(to=Store(address, "tiny")) == 4
    assert not [name for name in names(store) if name.startswith("2/")]
    assert store.versions() == [1, 3, 4]


def test_a_poll_is_one_request_and_sends_the_aliases_only_when_they_changed(
    store: Store, publish: PublishTo, proxy: Proxy, address: str
) -> None:
    publish()
    reader = Store(address, "tiny")
    reader.aliases()
    proxy.requests.clear()
    assert [reader.aliases() for _ in range(3)] == [{"champion": 1}] * 3
    assert proxy.requests == ["GET tiny/aliases.json"] * 3
    assert [proxy.answers[-1], proxy.answers[-2]] == [304, 304]
    publish(seed=1)
    assert reader.aliases() == {"champion": 2}


def test_lines_of_many_writers_are_all_in_the_history(store: Store, address: str) -> None:
    def write(number: int) -> None:
        own = Store(address, "tiny")._backend
        for line in range(5):
            own.append("history.jsonl", json.dumps({"n": f"{number}.{line}"}).encode())

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [event["n"] for event in store.history()]
    assert sorted(found) == sorted(f"{n}.{line}" for n in range(4) for line in range(5))


def test_every_command_of_mlpserve_models_works(
    address: str, publish: PublishTo, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        publish(seed=seed, promote=False)
    base = ["--store", address, "--model", "tiny"]

    def run(command: str, *rest: str, code: int = 0) -> Any:
        assert main([command, *base, "--json", *rest]) == code
        return json.loads(capsys.readouterr().out)

    assert run("promote", "1", "--reason", "first") == {
        "alias": "champion", "version": 1, "previous": None,
    }  # fmt: skip
    assert run("promote", "3", "--reason", "better")["previous"] == 1
    assert run("rollback", "--to", "1", "--reason", "worse")["version"] == 1
    assert [row["version"] for row in run("list")] == [3, 2, 1]
    assert run("show")["aliases"] == ["champion"]
    assert [row["ok"] for row in run("verify")] == [True, True, True]
    assert run("prune", "--keep", "1") == {"removed": [2], "kept": [1, 3]}
    assert main(["promote", "9", "--reason", "none", *base]) == 1
    assert capsys.readouterr().err == "mlpserve-models: tiny has no version 9\n"
