"""What a store with many versions costs: counted in calls, not measured in time."""

import json
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mlpserve_model import Manifest, Store
from tests.support.forging import Publish

COUNTED = ("stat", "fsync", "open")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The system's calls so far, without those of servers that other tests share."""
    counts, thread = Counter[str](), threading.get_ident()

    def counting(name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += threading.get_ident() == thread
            return call(*args, **kwargs)

        return counted

    for name in COUNTED:
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    return counts


@pytest.fixture
def grow(store: Store) -> Callable[[int], None]:
    """Adds versions up to this number, of which only the manifest is there."""

    def grow(count: int) -> None:
        for version in range(store.versions()[-1] + 1, count + 1):
            store.path(version).mkdir()
            (store.path(version) / "manifest.json").write_text("{}")

    return grow


def test_a_publication_costs_as_much_beside_200_versions_as_beside_600(
    store: Store,
    published: Manifest,
    publish: Publish,
    grow: Callable[[int], None],
    calls: Counter[str],
) -> None:
    costs = []
    for count in (200, 600):
        grow(count)
        calls.clear()
        publish()
        costs.append(dict(calls))
    assert costs[0] == costs[1]


def test_pruning_600_versions_syncs_no_more_often_than_pruning_50(
    store: Store, published: Manifest, grow: Callable[[int], None], calls: Counter[str]
) -> None:
    syncs = []
    for count in (50, 600):
        grow(count)
        calls.clear()
        store.prune(1)
        syncs.append(calls["fsync"])
    assert store.versions() == [600]
    assert syncs[0] == syncs[1] <= 2


def test_the_newest_version_is_found_without_a_look_at_the_others(
    store: Store, published: Manifest, grow: Callable[[int], None], calls: Counter[str]
) -> None:
    grow(600)
    calls.clear()
    assert next(iter(store.newest()))[0] == 600
    assert calls["stat"] == 1


def test_many_versions_are_pruned_together(
    store: Store, published: Manifest, publish: Publish, grow: Callable[[int], None]
) -> None:
    grow(60)
    newest = publish().version
    assert store.prune(1) == [*range(1, newest)]
    assert store.versions() == [newest]
    # Neither their folders nor what they are renamed to.
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == [str(newest)]


def test_links_and_folders_with_the_names_of_leftovers_stay(
    store: Store, published: Manifest, publish: Publish
) -> None:
    (store.folder / ".7.removed").symlink_to(store.folder / "1")
    (store.folder / ".model.npz.5.tmp").mkdir()
    (store.folder / "9").write_text("not a version, but its number is taken")
    assert publish().version == 10
    assert store.versions() == [1, 10]
    assert (store.folder / ".7.removed").is_symlink()
    assert (store.folder / ".model.npz.5.tmp").is_dir()


def test_of_a_long_history_the_end_is_read_for_a_new_version_and_all_for_an_older_one(
    store: Store, publish: Publish
) -> None:
    old, note = publish(), json.dumps({"event": "note", "reason": "x" * 1000})
    with (store.folder / "history.jsonl").open("a") as file:
        file.write(f"{note}\n" * 4000)
    new, reader = publish(), Store(store.root, store.model)

    def megabytes_of_reading(version: int) -> float:
        tracemalloc.start()
        try:
            reader.manifest(version)
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()

    assert megabytes_of_reading(new.version) < 1
    assert megabytes_of_reading(old.version) > 4
