"""A version is its number and its manifest: no number is given out twice, no manifest exchanged."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from mlpserve_model import CHAMPION, CorruptVersion, Store, StoreError, VersionNotFound
from tests.support.faults import fail_at
from tests.support.forging import Publish, forget_digests


def test_a_number_is_never_given_out_twice_even_after_its_folder_was_removed(
    store: Store, publish: Publish
) -> None:
    assert [publish().version, publish().version] == [1, 2]
    shutil.rmtree(store.path(2))
    assert publish().version == 3
    shutil.rmtree(store.path(3))
    shutil.rmtree(store.path(1))
    assert Store(store.root, store.model).versions() == []
    assert publish().version == 4


def test_an_event_about_a_version_is_enough_for_its_number_to_be_known(
    store: Store, publish: Publish
) -> None:
    store.record("prune", 7, "a test")
    store.record("run", None, "about no version")
    store.record("note", 10**18, "no number that a version can have")
    store.record("note", "12", "not a number")  # type: ignore[arg-type]
    assert publish().version == 8


def test_when_no_number_is_left_nothing_is_published(store: Store, publish: Publish) -> None:
    store.record("prune", 10**18 - 1, "a test")
    with pytest.raises(StoreError, match=r"no number is left for a version after 9{18}"):
        publish()
    assert store.versions() == []


def test_the_history_holds_the_digest_of_the_manifest(store: Store, publish: Publish) -> None:
    published = publish()
    (event,) = store.history()
    assert event["manifest"] == published.own_digest == store.manifest(1).own_digest


def test_another_manifest_than_was_published_is_rejected(store: Store, publish: Publish) -> None:
    publish()
    path = store.path(1) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"cedar", b"cacao"))
    for reader in (store, Store(store.root, store.model)):
        for read in (reader.manifest, reader.load, reader.verify):
            with pytest.raises(CorruptVersion, match="not the one that was published: its digest"):
                read(1)


def test_a_history_of_an_older_release_vouches_for_nothing_and_is_read(
    store: Store, publish: Publish
) -> None:
    publish()
    forget_digests(store)
    path = store.path(1) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"cedar", b"cacao"))
    assert Store(store.root, store.model).verify(1).signature.class_names[2] == "cacao"
    (store.folder / "history.jsonl").unlink()
    assert Store(store.root, store.model).verify(1)


def test_of_two_publications_of_a_number_the_last_counts(store: Store, publish: Publish) -> None:
    publish()
    store.record("publish", 1, "by an older release, into a folder that was removed")
    assert Store(store.root, store.model).verify(1)
    store.record("publish", 1, "of another", manifest=f"sha256:{'0' * 64}")
    with pytest.raises(CorruptVersion, match="expected sha256:0000"):
        Store(store.root, store.model).load(1)


def test_a_reader_learns_of_a_store_that_was_made_anew(store: Store, publish: Publish) -> None:
    publish(seed=1)
    reader = Store(store.root, store.model)
    first = reader.load(1).manifest
    shutil.rmtree(store.folder)
    publish(seed=2)
    assert reader.load(1).manifest.digest != first.digest
    assert reader.verify(1)


def test_a_stamp_changes_with_the_manifest_and_is_none_where_there_is_none(
    store: Store, publish: Publish
) -> None:
    assert store.stamp(1) is None
    publish()
    publish()
    stamps = dict(store.newest())
    assert [store.stamp(1), store.stamp(2)] == [stamps[1], stamps[2]]
    (store.path(1) / "manifest.json").write_text("other")
    assert store.stamp(1) not in (None, stamps[1])
    assert store.stamp(2) == stamps[2]
    (store.path(2) / "manifest.json").unlink()
    assert store.stamp(2) is None


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_what_cannot_be_looked_at_is_neither_gone_nor_removed(
    error: int, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    publish()
    store.move_alias(CHAMPION, 2, expected=None, event="promote", reason="a test")
    for path in (store.path(1), store.path(1) / "manifest.json"):
        with monkeypatch.context() as patch:
            fail_at(patch, path, error)
            fail_at(patch, Path("1/manifest.json"), error)
            for use in (store.versions, publish, lambda: store.prune(1), lambda: store.stamp(1)):
                with pytest.raises(StoreError, match=os.strerror(error)) as caught:
                    use()
                assert not isinstance(caught.value, VersionNotFound | CorruptVersion)
        assert (store.path(1) / "manifest.json").exists()
        assert store.verify(1)
    assert store.versions() == [1, 2]
    assert publish().version > 2


def test_a_store_that_is_not_there_says_nothing_about_a_version(
    store: Store, publish: Publish
) -> None:
    publish()
    with pytest.raises(VersionNotFound):
        store.load(2)
    away = store.folder.parent.with_name("away")
    for gone, message in ((store.folder, "there is no .*/tiny"), (store.root, "there is no")):
        assert isinstance(gone, Path)
        gone.rename(away)
        assert not store.exists()
        for read in (store.manifest, store.load, store.verify):
            with pytest.raises(StoreError, match=message) as caught:
                read(1)
            assert type(caught.value) is StoreError
        away.rename(gone)
    assert store.exists()


def test_a_history_that_is_not_a_file_says_nothing_about_a_version(
    store: Store, publish: Publish
) -> None:
    publish()
    (store.folder / "history.jsonl").unlink()
    (store.folder / "history.jsonl").mkdir()
    with pytest.raises(
        StoreError, match=r"cannot read .*history.jsonl: .*is not a regular file"
    ) as e:
        Store(store.root, store.model).load(1)
    assert type(e.value) is StoreError


def test_a_prune_that_died_is_finished_by_the_next_writer(store: Store, publish: Publish) -> None:
    publish()
    store.path(1).rename(store.folder / ".1.removed")
    assert store.versions() == []
    assert publish().version == 2
    assert sorted(p.name for p in store.folder.iterdir()) == [".lock", "2", "history.jsonl"]
    assert json.loads((store.folder / "history.jsonl").read_text().splitlines()[-1])
