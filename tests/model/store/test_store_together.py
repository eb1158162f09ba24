"""Readers, writers and pruners of one store at once, as threads."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import numpy as np
import pytest

from mlpserve_model import (
    CHAMPION,
    Draft,
    Store,
    Verdict,
    VersionNotFound,
    Weights,
)
from tests.support.forging import Publish

Writing: TypeAlias = Callable[[int], AbstractContextManager[threading.Thread]]


@pytest.fixture
def writing(store: Store, draft: Draft, weights: Weights) -> Writing:
    """While the block runs, a thread publishes, promotes and prunes this many times."""
    golden = np.ones((2, 4), np.float32)

    def write(count: int) -> None:
        for _ in range(count):
            version = store.publish(draft, Verdict("PROMOTED"), weights, golden).version
            expected = store.aliases().get(CHAMPION)
            store.move_alias(CHAMPION, version, expected=expected, event="promote", reason="new")
            store.prune(1)

    @contextmanager
    def writing(count: int) -> Iterator[threading.Thread]:
        thread = threading.Thread(target=write, args=(count,))
        thread.start()
        yield thread
        thread.join()

    return writing


def test_a_reader_beside_writers_sees_whole_versions_or_none(
    store: Store, writing: Writing
) -> None:
    seen = Counter[str]()
    with writing(60) as thread:
        while thread.is_alive():
            for version in store.versions():
                try:
                    assert store.load(version).manifest.version == version
                    seen["loaded"] += 1
                except VersionNotFound:  # pruned meanwhile
                    seen["pruned meanwhile"] += 1
    assert seen["loaded"]


def test_a_reader_beside_writers_always_finds_the_champion_and_it_never_goes_back(
    store: Store, writing: Writing
) -> None:
    champions = [0]
    with writing(40) as thread:
        while thread.is_alive():
            champions.append(store.aliases().get(CHAMPION, 0))
            assert store.history() is not None
    assert champions == sorted(champions)
    assert store.resolve(CHAMPION) == 40


def test_threads_share_one_store(store: Store, publish: Publish) -> None:
    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.versions() == list(range(1, 9))
    assert len(store.history()) == 8
