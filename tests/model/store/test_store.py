"""The store as readers and writers use it: versions, locking, pruning, sweeping."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mlpserve_model import (
    CHAMPION,
    Draft,
    Store,
    StoreBusy,
    StoreError,
    Verdict,
    Weights,
    forward,
)
from mlpserve_model.format.manifest_reader import read_manifest
from tests.support.forging import EditManifest, Golden, Publish


def _promote(
    store: Store, version: int, expected: int | None = None, alias: str = CHAMPION
) -> None:
    store.move_alias(alias, version, expected=expected, event="promote", reason="a test")


def test_a_published_version_is_read_back_as_it_was(
    store: Store, draft: Draft, weights: Weights, golden: Golden
) -> None:
    published = store.publish(
        draft, Verdict("PROMOTED"), weights, golden, {"report.html": b"<p>", "model_card.md": b"#"}
    )
    model = store.load(published.version)
    assert model.manifest == published == store.manifest(1) == store.verify(1)
    assert set(published.files) == {"model.npz", "golden.npz", "report.html", "model_card.md"}
    assert all(getattr(published, f.name) == getattr(draft, f.name) for f in fields(Draft))
    for ours, read in zip(weights, model.weights, strict=True):
        assert_array_equal(ours.w, read.w)
        assert_array_equal(ours.b, read.b)
        assert not read.w.flags.writeable
    assert_array_equal(model.predict(golden), forward(draft.network, weights, golden))


def test_the_digest_is_the_sha256_of_the_weights_file(store: Store, publish: Publish) -> None:
    manifest = publish()
    command = ["sha256sum", str(store.path(1) / "model.npz")]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert manifest.digest == f"sha256:{printed.split()[0]}"


def test_the_same_weights_give_the_same_digest(publish: Publish) -> None:
    assert publish(seed=4).digest == publish(seed=4).digest != publish(seed=5).digest


def test_float64_and_fortran_ordered_weights_are_stored_as_the_format_says(
    store: Store, draft: Draft, weights: Weights, golden: Golden
) -> None:
    wide = tuple(layer._replace(w=np.asfortranarray(layer.w, np.float64)) for layer in weights)
    assert (
        store.publish(draft, Verdict("PROMOTED"), wide, golden).digest
        == store.publish(draft, Verdict("PROMOTED"), weights, golden).digest
    )
    assert store.load(1).weights[0].w.dtype == np.float32


def test_versions_are_numbered_from_one_and_listed_oldest_first(
    store: Store, publish: Publish
) -> None:
    assert store.versions() == []
    assert [publish().version for _ in range(11)] == store.versions() == list(range(1, 12))


def test_what_is_not_a_version_is_not_listed(store: Store, publish: Publish) -> None:
    publish()
    for name in ("7", "007", "0", "-1", "1.5", "2x", "9" * 19, ".3", "notes"):
        (store.folder / name).mkdir()
    for name in ("007", "0", "9" * 19, "notes"):
        (store.folder / name / "manifest.json").write_text("{}")
    assert store.versions() == [1]


def test_fields_that_this_release_does_not_know_are_kept(
    store: Store, publish: Publish, edit_manifest: EditManifest
) -> None:
    publish()
    edit_manifest(lambda document: document.update(signature={"by": ["ünï", 1, None]}))
    manifest = store.load(1).manifest
    assert manifest.extra == {"signature": {"by": ["ünï", 1, None]}}
    assert read_manifest(manifest.document) == manifest


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", ".hidden", "Big", "a" * 64, "a\n"])
def test_a_model_name_that_is_no_plain_folder_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the model name"):
        Store(tmp_path, name)


def test_readers_need_neither_lock_nor_write_access(store: Store, publish: Publish) -> None:
    publish()
    _promote(store, 1)
    before = {p: p.stat().st_mtime_ns for p in store.folder.rglob("*")}
    reader = Store(store.folder.parent, "tiny")
    with store.lock():
        assert reader.load(reader.resolve(CHAMPION)).manifest.version == 1
        assert len(reader.history()) == 2
    assert {p: p.stat().st_mtime_ns for p in store.folder.rglob("*")} == before


# The lock


def test_a_lock_held_by_another_process_is_waited_for_and_then_refused(store: Store) -> None:
    store.folder.mkdir(parents=True)
    code = (
        "import sys; from mlpserve_model import Store\n"
        "with Store(sys.argv[1], 'tiny').lock(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(store.folder.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(StoreBusy, match=r"held by another process for more than 0\.05 s"),
            store.lock(timeout=0.05),
        ):
            pass
        holder.kill()
        holder.wait()
        with store.lock(timeout=10):  # the kernel freed it
            pass


def test_a_lock_may_be_nested_and_is_free_afterwards(store: Store) -> None:
    other = Store(store.folder.parent, "tiny")
    with store.lock(), store.lock(), pytest.raises(StoreBusy), other.lock(timeout=0):
        pass
    with other.lock(timeout=0):
        pass


def test_a_lock_is_free_after_an_error_inside_it(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock():
        raise RuntimeError
    with Store(store.folder.parent, "tiny").lock(timeout=0):
        pass


# Pruning and sweeping


def test_pruning_keeps_the_newest_and_every_alias_and_records_each(
    store: Store, publish: Publish
) -> None:
    for _ in range(6):
        publish()
    _promote(store, 2)
    _promote(store, 3, alias="canary")
    assert store.prune(2) == [1, 4]
    assert store.versions() == [2, 3, 5, 6]
    assert sorted(p.name for p in store.folder.iterdir() if p.is_dir()) == ["2", "3", "5", "6"]
    assert [e["version"] for e in store.history() if e["event"] == "prune"] == [1, 4]
    assert store.prune(2) == []
    assert publish().version == 7


def test_pruning_everything_is_refused(store: Store, publish: Publish) -> None:
    publish()
    with pytest.raises(StoreError, match="keep must be at least 1, got 0"):
        store.prune(0)
    assert store.versions() == [1]


def test_pruning_does_nothing_while_the_aliases_cannot_be_read(
    store: Store, publish: Publish
) -> None:
    publish()
    publish()
    (store.folder / "aliases.json").write_text("{")
    with pytest.raises(StoreError, match=r"aliases\.json"):
        store.prune(1)
    assert store.versions() == [1, 2]


def test_what_dead_writers_left_is_swept_by_the_next_publish(
    store: Store, publish: Publish
) -> None:
    publish()
    litter = store.folder / "2"
    litter.mkdir()
    (litter / ".model.npz.123.tmp").write_bytes(b"half")
    (litter / "golden.npz").write_bytes(b"whole")
    (store.folder / ".aliases.json.123.tmp").write_bytes(b"half")
    assert publish().version == 2
    assert [p.name for p in store.folder.rglob("*.tmp")] == []
    assert store.verify(2)


def test_a_stray_file_or_link_named_like_a_version_stops_nobody(
    store: Store, publish: Publish, tmp_path: Path
) -> None:
    publish()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").write_text("me")
    (store.folder / "5").write_text("a note")
    (store.folder / "6").symlink_to(elsewhere)
    assert publish().version == 7
    assert store.versions() == [1, 7]
    assert (elsewhere / "keep").exists()


def test_opening_a_store_or_reading_none_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none", "tiny")
    assert (store.versions(), store.aliases(), store.history()) == ([], {}, [])
    assert list(tmp_path.iterdir()) == []
