"""Publishing to a volume that refuses: a clear error, nothing visible, the champion in place."""

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_model import (
    CHAMPION,
    Draft,
    Network,
    Store,
    StoreError,
    Verdict,
    Weights,
    initialise,
)
from tests.support.forging import Golden, Publish

Operation = Callable[..., Any]


class Recorder:
    """Notes the calls that make files durable, and lets the chosen one fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail_at = -1
        self.error = errno.ENOSPC

    def note(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) - 1 == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, store: Store) -> Recorder:
    recorder, fsync, rename, mkdir = Recorder(), os.fsync, os.rename, os.mkdir

    def named(descriptor: int, name: str = "") -> str:
        path = Path(f"/proc/self/fd/{descriptor}").readlink() / name
        return path.relative_to(store.folder.parent).as_posix().replace(f".{os.getpid()}.", ".")

    def noted_fsync(descriptor: int) -> None:
        recorder.note(f"fsync {named(descriptor)}")
        fsync(descriptor)

    def noted_rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        recorder.note(f"rename {named(src_dir_fd, old)} {new}")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def noted_mkdir(name: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:  # not the root, which is there
            recorder.note(f"mkdir {named(dir_fd, name)}")
        mkdir(name, mode, dir_fd=dir_fd)

    store.folder.parent.mkdir()
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    monkeypatch.setattr(os, "mkdir", noted_mkdir)
    return recorder


PUBLISH = [
    "mkdir tiny/{n}",
    "fsync tiny",
    "fsync tiny/{n}/.model.npz.tmp", "rename tiny/{n}/.model.npz.tmp model.npz", "fsync tiny/{n}",
    "fsync tiny/{n}/.golden.npz.tmp", "rename tiny/{n}/.golden.npz.tmp golden.npz",
    "fsync tiny/{n}",
    "fsync tiny/history.jsonl",
    "fsync tiny/{n}/.manifest.json.tmp", "rename tiny/{n}/.manifest.json.tmp manifest.json",
    "fsync tiny/{n}",
]  # fmt: skip


def test_each_file_is_synced_before_its_name_and_each_name_before_the_next_file(
    recorder: Recorder, publish: Publish
) -> None:
    publish()
    first = [call.format(n=1) for call in PUBLISH]
    at = first.index("fsync tiny/history.jsonl") + 1
    # The first publish also makes the model's folder and the history's name durable.
    assert recorder.calls == [
        "mkdir tiny", "fsync .", *first[:at], "fsync tiny", *first[at:],
    ]  # fmt: skip
    recorder.calls.clear()
    publish()
    assert recorder.calls == [call.format(n=2) for call in PUBLISH]


def test_an_alias_is_recorded_and_synced_before_it_moves(
    recorder: Recorder, store: Store, publish: Publish
) -> None:
    publish()
    recorder.calls.clear()
    store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="a test")
    assert recorder.calls == [
        "fsync tiny/history.jsonl",
        "fsync tiny/.aliases.json.tmp",
        "rename tiny/.aliases.json.tmp aliases.json",
        "fsync tiny",
    ]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("place", range(len(PUBLISH)))
def test_a_call_that_fails_leaves_nothing_visible_and_the_champion_in_place(
    place: int, error: int, recorder: Recorder, store: Store, publish: Publish
) -> None:
    publish()
    store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="a test")
    recorder.fail_at, recorder.error = len(recorder.calls) + place, error
    with pytest.raises(StoreError) as caught:
        publish()
    assert str(caught.value) == f"cannot publish to {store.folder}: {os.strerror(error)}" or (
        str(caught.value) == f"cannot write to {store.folder}: {os.strerror(error)}"
    )
    assert store.versions() == [1]
    assert store.resolve(CHAMPION) == 1
    assert store.verify(1)
    assert [p.name for p in store.folder.rglob("*.tmp")] == []
    known = max(event["version"] for event in store.history())
    assert known == (2 if place > PUBLISH.index("fsync tiny/history.jsonl") - 1 else 1)
    assert store.verify(publish().version).version == known + 1  # a number is given out once
    assert {event["version"] for event in store.history()} == set(range(1, known + 2))


@pytest.mark.parametrize("place", range(4))
def test_a_move_that_fails_leaves_the_alias_whole(
    place: int, recorder: Recorder, store: Store, publish: Publish
) -> None:
    publish()
    publish()
    store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="a test")
    recorder.fail_at = len(recorder.calls) + place
    with pytest.raises(StoreError, match=r"cannot write to .*: No space left on device"):
        store.move_alias(CHAMPION, 2, expected=1, event="promote", reason="a test")
    # The last call makes the new name durable: then the alias may have moved already.
    assert store.resolve(CHAMPION) == (2 if place == 3 else 1)
    assert not list(store.folder.glob("*.tmp"))


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond a size, as a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["model.npz", "golden.npz", "manifest.json"])
def test_a_file_that_may_not_grow_leaves_nothing_visible(
    name: str, store: Store, publish: Publish, file_size_limit: Callable[[int], None]
) -> None:
    publish()
    file_size_limit((store.path(1) / name).stat().st_size - 1)
    with pytest.raises(StoreError, match="File too large"):
        publish()
    file_size_limit(resource.RLIM_INFINITY)
    assert store.versions() == [1]
    assert not (store.folder / "2").exists()
    assert publish().version == 2


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    volume = tmp_path / "small"
    volume.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(volume)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield volume
    subprocess.run(["umount", str(volume)], check=True)


def test_a_full_volume_refuses_the_version_and_serves_the_last(
    small_volume: Path, draft: Draft, golden: Golden, weights: Weights
) -> None:
    store = Store(small_volume, "tiny")
    store.publish(draft, Verdict("PROMOTED"), weights, golden)
    large = replace(draft, network=Network((4, 5000, 3)))
    with pytest.raises(StoreError, match=r"cannot publish to .*: No space left on device"):
        store.publish(
            large, Verdict("PROMOTED"), initialise(large.network, np.random.default_rng(0)), golden
        )
    assert store.versions() == [1]
    assert store.verify(1)
    assert store.publish(draft, Verdict("PROMOTED"), weights, golden).version == 2


def test_a_store_that_may_not_be_written_is_a_store_error(
    tmp_path: Path, draft: Draft, weights: Weights, golden: Golden
) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"cannot write to .*/models/tiny: "):
        Store(tmp_path / "models", "tiny").publish(draft, Verdict("PROMOTED"), weights, golden)
