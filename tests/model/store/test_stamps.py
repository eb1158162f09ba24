"""Stamps change with what is served; one listing of an object store has those of all models."""

import os
import shutil
from collections.abc import Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlpserve_model import Store
from mlpserve_model.store import stamps as stamps_module
from mlpserve_model.store.location import Bucket, parse_location
from mlpserve_model.store.object_client import Entry
from mlpserve_model.store.stamps import StampListing, StampReader
from tests.support.publishing import publish_to


class Objects:
    """The listing of a store, and how often it was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fails = False
        self.asked = 0

    def list(self, folder: str = "") -> list[Entry]:
        self.asked += 1
        if self.fails:
            raise OSError("the store is away")
        return [Entry(name, f"tag of {name}", datetime.now(UTC)) for name in self.names]


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def stamps(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> StampListing:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    root = parse_location("s3://bucket/store")
    assert isinstance(root, Bucket)
    listing: Any = StampListing(root)
    listing._objects = objects
    return listing  # type: ignore[no-any-return]


def test_a_stamp_changes_with_aliases_and_manifests_alone(
    objects: Objects, stamps: StampListing
) -> None:
    assert stamps.of("a") is None
    objects.names = ["a/1/manifest.json", "a/aliases.json", "b/aliases.json", "No/aliases.json"]
    stamps.refresh()
    before = {name: stamps.of(name) for name in "ab"}
    assert stamps.names() == ["a", "b"]
    objects.names += ["a/2/model.npz", "a/2/claim.json", "a/history.jsonl"]
    stamps.refresh()
    assert {name: stamps.of(name) for name in "ab"} == before
    objects.names += ["a/2/manifest.json"]
    stamps.refresh()
    assert stamps.of("a") != before["a"]
    assert stamps.of("b") == before["b"]


def test_a_store_that_cannot_be_listed_has_no_stamps(
    objects: Objects, stamps: StampListing
) -> None:
    objects.names = ["a/aliases.json"]
    stamps.refresh()
    objects.fails = True
    stamps.refresh()
    assert stamps.of("a") is None


def test_a_listing_of_more_requests_than_models_is_made_rarely(
    objects: Objects, stamps: StampListing
) -> None:
    objects.names = ["a/aliases.json"] + [f"a/{n}/model.npz" for n in range(1001)]
    stamps.refresh()
    assert stamps.of("a") is not None
    for _ in range(50):
        stamps.refresh()
        assert stamps.of("a") is None  # it is asked by itself
    assert objects.asked == 1
    for _ in range(20):
        stamps.refresh()
    assert objects.asked == 2


def test_the_stamp_of_a_folder_changes_with_the_aliases_and_their_versions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, "a")
    publish_to(store)
    reader = StampReader(tmp_path)

    def stamp() -> Hashable:
        return reader.read(["a", "missing"])["a"]

    first = stamp()
    assert reader.read(["missing"]) == {"missing": None}
    assert stamp() == first
    publish_to(store, promote=False)
    assert stamp() == first
    store.move_alias("champion", 2, expected=1, event="promote", reason="test")
    second = stamp()
    assert second != first
    # What a file's time and size do not show is seen a few seconds later.
    aliases = store.folder / "aliases.json"
    before = aliases.stat()
    aliases.write_text(aliases.read_text().replace("2", "1"))
    os.utime(aliases, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(stamps_module, "_READ_SECONDS", 0.0)
    assert stamp() == first
    shutil.rmtree(store.folder)
    assert stamp() is None
