"""One poll of the store is enough for all workers."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mlpserve_model import Store
from mlpserve_server.lifecycle.store_watch import StoreWatch
from tests.support.publishing import publish_to
from tests.support.workers import StartGroup, counted, started_groups


@pytest.fixture
def root(store: Store) -> Path:
    return store.folder.parent


@pytest.fixture
def start_group(root: Path) -> Iterator[StartGroup]:
    """Start a watch and its workers; they are closed after the test."""
    with started_groups(root) as start:
        yield start


@pytest.mark.parametrize("workers", [1, 4])
def test_a_poll_is_one_stat_a_model_however_many_workers(
    workers: int, root: Path, start_group: StartGroup
) -> None:
    publish_to(Store(root, "model-00"))
    for number in range(1, 100):  # their manifests name another model: nothing here reads them
        (root / f"model-{number:02}").mkdir()
        shutil.copy(root / "model-00" / "aliases.json", root / f"model-{number:02}")
    group = start_group(["model-00"], workers, ["*"])
    group.poll(times=2)
    calls: list[str] = []
    for seen in group.watch._reader._seen.values():
        counted(seen.store, calls)
    asked: list[str] = []
    for worker in group.workers:
        assert worker.version("model-00") == 1
        counted(worker.models.get("model-00").store, asked)
    group.poll(times=3)
    assert calls.count("file_stamp") == 3 * 100
    assert asked == []


def test_what_happens_in_the_store_reaches_every_worker_with_the_next_poll(
    root: Path, start_group: StartGroup
) -> None:
    a, b = Store(root, "a"), Store(root, "b")
    publish_to(a)
    publish_to(b)
    group = start_group(["*"])

    def answering(name: str) -> set[int]:
        return {worker.version(name) for worker in group.workers}

    group.poll(times=2)
    assert answering("a") == answering("b") == {1}
    publish_to(a, seed=1)
    group.poll()
    assert answering("a") == {2}
    a.move_alias("champion", 1, expected=2, event="rollback", reason="test")
    group.poll()
    assert answering("a") == {1}
    publish_to(Store(root, "c"))
    group.poll()
    assert answering("c") == {1}
    shutil.rmtree(root / "b")
    group.poll()
    assert answering("b") == {1}  # one listing without it may be wrong
    group.poll()
    assert {name for worker in group.workers for name in worker.models.managers} == {"a", "c"}


def test_a_number_that_is_used_again_is_seen_though_the_aliases_say_the_same(
    root: Path, start_group: StartGroup
) -> None:
    store = Store(root, "a")
    publish_to(store)
    group = start_group(["a"])
    group.poll(times=2)
    shutil.rmtree(store.folder)
    publish_to(store, seed=1)
    group.poll()
    wanted = store.manifest(1).own_digest
    for worker in group.workers:
        current = worker.models.get("a").current
        assert current
        assert current.manifest.own_digest == wanted


def test_an_update_is_one_message(root: Path) -> None:
    """A stream would have to be cut into messages again, and could stop in the middle of one."""
    publish_to(Store(root, "a"))
    watch = StoreWatch(root, ["a"])
    with closing(watch), watch.line(1) as line, socket.socket(fileno=os.dup(line)) as ours:
        watch.poll()
        watch.poll()
        assert ours.recv(1 << 18) == b'{"changed": null, "unknown": [], "names": null}'
        assert ours.recv(1 << 18) == b'{"changed": [], "unknown": []}'
