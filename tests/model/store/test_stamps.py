"""One listing of an object store for all models, as long as that takes the fewer requests."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlpserve_model.store.location import Bucket, parse_location
from mlpserve_model.store.object_client import Entry
from mlpserve_model.store.stamps import StampListing


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
