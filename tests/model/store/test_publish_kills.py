"""Publishers killed at random moments, and publishers at once, as processes of their own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from mlpserve_model import CHAMPION, Store, StoreError
from tests.support.forging import Publish
from tests.support.publishers import PUBLISHER, assert_whole, start_publisher

DEFAULT, MANY = 15, 100

# The broken twin: files grow under their final names.
WITHOUT_TEMPORARY_NAMES = """
import os
from mlpserve_model.store.atomic_files import Directory

def write_in_place(self, name, data):
    step = max(len(data) // 20, 1)
    with (self.path / name).open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])
            os.fsync(file.fileno())

Directory.write = write_in_place
"""


def _killed(code: str, root: Path, rng: np.random.Generator) -> list[int]:
    """The versions acknowledged by a publisher that ran for a random while."""
    with start_publisher(code, root, 10**6, int(rng.integers(2**31))) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.15))
        child.kill()
        lines = child.stdout.read().split("\n")[:-1]  # a torn last line was not read by anybody
    return [int(line) for line in lines]


# Runs this publisher and kills it, so many times.
Kill: TypeAlias = Callable[[str, int], Iterator[list[int]]]


@pytest.fixture
def kill(store: Store) -> Iterator[Kill]:
    """After each of `count` kills: the versions acknowledged by the publisher that was killed."""

    def kill(code: str, count: int) -> Iterator[list[int]]:
        rng = np.random.default_rng(8)
        for _ in range(count):
            yield _killed(code, store.folder.parent, rng)

    yield kill
    print(f"\n{len(store.versions())} versions after the kills")


def _assert_kills_leave_the_store_whole(
    store: Store, kill: Kill, publish: Publish, count: int
) -> None:
    acknowledged, littered = list[int](), 0
    for ours in kill(PUBLISHER, count):
        acknowledged += ours
        littered += len(_litter(store))
        assert_whole(store, acknowledged)
    for version in store.versions():
        store.verify(version)
    last = store.versions()[-1:]
    assert publish().version > (last[0] if last else 0)
    assert _litter(store) == []
    print(f"\n{count} kills, {len(acknowledged)} acknowledged, {littered} half-written files swept")
    assert acknowledged


def _litter(store: Store) -> list[Path]:
    unborn = [p for p in store.folder.glob("[0-9]*") if not (p / "manifest.json").exists()]
    return unborn + list(store.folder.rglob(".*.tmp"))


@pytest.mark.faults
def test_a_killed_publisher_leaves_whole_versions_or_none(
    store: Store, kill: Kill, publish: Publish
) -> None:
    _assert_kills_leave_the_store_whole(store, kill, publish, DEFAULT)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_killed_publishers_leave_whole_versions_or_none(
    store: Store, kill: Kill, publish: Publish
) -> None:
    _assert_kills_leave_the_store_whole(store, kill, publish, MANY)


@pytest.mark.faults
def test_publishing_without_temporary_names_is_caught(store: Store, kill: Kill) -> None:
    def kill_until_harm() -> None:
        for acknowledged in kill(WITHOUT_TEMPORARY_NAMES + PUBLISHER, 100):
            assert_whole(store, acknowledged)

    # A torn manifest, or a torn alias file.
    with pytest.raises(StoreError, match=r"manifest\.json is not JSON|aliases\.json is not JSON"):
        kill_until_harm()


def test_four_publishers_at_once_get_forty_versions(store: Store) -> None:
    children = [start_publisher(PUBLISHER, store.folder.parent, 10, seed) for seed in range(4)]
    outputs = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0, 0], outputs
    published = [int(n) for out, _ in outputs for n in out.split()[1:]]
    assert sorted(published) == store.versions() == list(range(1, 41))
    for version in published:
        store.verify(version)
    assert store.resolve(CHAMPION) == 40
    promoted = [e["version"] for e in store.history() if e["event"] == "promote"]
    assert promoted == sorted(promoted)


def test_without_the_lock_publishers_at_once_are_caught(store: Store) -> None:
    unlocked = (
        "import contextlib, time\n"
        "from mlpserve_model import Store\n"
        "Store.lock = lambda self, timeout=0: contextlib.nullcontext()\n"
        "import os\n"
        "mkdir = os.mkdir\n"
        "os.mkdir = lambda *a, **k: (time.sleep(0.01), mkdir(*a, **k))\n"
    )
    store.folder.mkdir(parents=True)
    children = [
        start_publisher(unlocked + PUBLISHER, store.folder.parent, 10, seed) for seed in range(4)
    ]
    for child in children:
        child.communicate()
    assert store.versions() != list(range(1, 41))
