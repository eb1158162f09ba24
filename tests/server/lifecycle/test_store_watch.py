"""One look at the store is enough for all workers, and none of them depends on it."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlpserve_model import Store
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.location import Bucket, parse_location
from mlpserve_model.store.object_client import Entry
from mlpserve_model.store.reader import StoreReader
from mlpserve_model.store.stamps import StampListing
from mlpserve_server.lifecycle import store_news
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.lifecycle.store_news import StoreNews
from mlpserve_server.lifecycle.store_watch import StoreWatch
from tests.support.publishing import publish_to
from tests.support.waiting import eventually


class Worker:
    """What a worker process has of the store."""

    def __init__(self, root: Path, patterns: list[str], line: int, poll_seconds: float) -> None:
        self.news = StoreNews(os.dup(line), poll_seconds, ModelListing(root).names)

        def make(name: str) -> ModelManager:
            stamp = partial(self.news.of, name)
            return ModelManager(Loader(StoreReader(root, name)), "champion", stamp=stamp)

        self.models = Models(patterns, None, make, self.news.names)

    def poll(self) -> None:
        """Poll as a server does."""
        self.news.refresh()
        self.models.poll()

    def close(self) -> None:
        """End its threads, and hear no more."""
        self.models.close()
        self.news._line.close()

    def version(self, name: str) -> int:
        """The version that answers; 0 for none."""
        current = self.models.get(name).current
        return current.manifest.version if current else 0


class Group:
    """A supervisor's watch, and some workers that it looks for."""

    def __init__(self, root: Path, patterns: list[str], count: int = 2) -> None:
        self.root, self.patterns = root, patterns
        self.watch = StoreWatch(root, patterns)
        self.workers = [self.start_worker() for _ in range(count)]

    def start_worker(self, poll_seconds: float = 5.0) -> Worker:
        """A worker; with this interval it waits for a look rather than for its own poll."""
        with self.watch.line(len(self.watch._lines)) as line:
            return Worker(self.root, self.patterns, line, poll_seconds)

    def look(self, times: int = 1) -> None:
        """Look, and have every worker act on it."""
        for _ in range(times):
            self.watch.look()
            for worker in self.workers:
                worker.poll()

    def close(self) -> None:
        """End the workers and the watch."""
        for worker in self.workers:
            worker.close()
        self.watch.close()


@pytest.fixture
def root(store: Store) -> Path:
    return store.folder.parent


@pytest.fixture
def groups() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class ListedObjects:
    """The listing of an object store, and how often it was asked for."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked = 0
        self.fails = False

    def list(self, folder: str = "") -> list[Entry]:
        self.asked += 1
        if self.fails:
            raise OSError("it is away")
        return [Entry(name, "a tag", datetime.now(UTC)) for name in self.names]


def start(groups: ExitStack, *arguments: Any) -> Group:
    group = Group(*arguments)
    groups.callback(group.close)
    return group


def polled(worker: Worker, until: Callable[[], bool]) -> None:
    def poll() -> bool:
        worker.poll()
        return until()

    eventually(poll)


def start_impatient(groups: ExitStack, root: Path, pattern: str) -> tuple[Group, Worker]:
    """A group of one worker that polls by itself as soon as it hears nothing."""
    group = start(groups, root, [pattern], 0)
    group.workers.append(group.start_worker(poll_seconds=0.01))
    return group, group.workers[0]


def counted(store: StoreReader, calls: list[str]) -> None:
    """Count what is asked of a store's folder."""
    backend: Any = store._backend
    for name in ("file_stamp", "read", "newest", "stamp", "exists"):
        setattr(backend, name, _counted(name, getattr(backend, name), calls))


def _counted(name: str, ask: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def count(*arguments: Any) -> Any:
        calls.append(name)
        return ask(*arguments)

    return count


@pytest.mark.parametrize("workers", [1, 4])
def test_a_poll_is_one_stat_a_model_however_many_workers(
    workers: int, root: Path, groups: ExitStack
) -> None:
    publish_to(Store(root, "model-00"))
    for number in range(1, 100):  # their manifests name another model: nothing here reads them
        (root / f"model-{number:02}").mkdir()
        shutil.copy(root / "model-00" / "aliases.json", root / f"model-{number:02}")
    watch = StoreWatch(root, ["*"])
    watch.look()
    looked: list[str] = []
    for seen in watch._reader._seen.values():
        counted(seen.store, looked)
    group = start(groups, root, ["model-00"], workers)
    group.close()
    group.watch = watch
    group.workers = [group.start_worker() for _ in range(workers)]
    group.look(times=2)
    asked: list[str] = []
    for worker in group.workers:
        assert worker.version("model-00") == 1
        counted(worker.models.get("model-00").store, asked)
    looked.clear()
    group.look(times=3)
    assert looked.count("file_stamp") == 3 * 100
    assert asked == []


def test_what_happens_in_the_store_reaches_every_worker_with_the_next_look(
    root: Path, groups: ExitStack
) -> None:
    a, b = Store(root, "a"), Store(root, "b")
    publish_to(a)
    publish_to(b)
    group = start(groups, root, ["*"])

    def answering(name: str) -> set[int]:
        return {worker.version(name) for worker in group.workers}

    group.look(times=2)
    assert answering("a") == answering("b") == {1}
    publish_to(a, seed=1)
    group.look()
    assert answering("a") == {2}
    a.move_alias("champion", 1, expected=2, event="rollback", reason="test")
    group.look()
    assert answering("a") == {1}
    publish_to(Store(root, "c"))
    group.look()
    assert answering("c") == {1}
    shutil.rmtree(root / "b")
    group.look()
    assert answering("b") == {1}  # one listing without it may be wrong
    group.look()
    assert {name for worker in group.workers for name in worker.models.managers} == {"a", "c"}


def test_a_number_that_is_used_again_is_seen_though_the_aliases_say_the_same(
    root: Path, groups: ExitStack
) -> None:
    store = Store(root, "a")
    publish_to(store)
    group = start(groups, root, ["a"])
    group.look(times=2)
    shutil.rmtree(store.folder)
    publish_to(store, seed=1)
    group.look()
    wanted = store.manifest(1).own_digest
    for worker in group.workers:
        current = worker.models.get("a").current
        assert current
        assert current.manifest.own_digest == wanted


def test_a_worker_that_does_not_read_keeps_none_waiting_and_misses_nothing(
    root: Path, groups: ExitStack
) -> None:
    stores = [Store(root, name) for name in "abc"]
    for store in stores:
        publish_to(store)
    group = start(groups, root, ["*"])
    group.look(times=2)
    stopped = group.workers.pop()
    groups.callback(stopped.close)
    for store in stores:
        publish_to(store, seed=1)
        group.look(times=12)  # Linux keeps ten messages for it
        assert group.workers[0].version(store.model) == 2
    stopped.poll()
    group.watch.look()
    stopped.poll()
    assert [stopped.version(name) for name in "abc"] == [2, 2, 2]


def test_a_worker_that_hears_nothing_looks_itself_and_listens_again(
    root: Path, groups: ExitStack
) -> None:
    store = Store(root, "a")
    publish_to(store)
    group, worker = start_impatient(groups, root, "*")
    worker.poll()
    assert worker.version("a") == 1  # the first poll waits for nothing
    group.look()
    assert worker.news.of("a") is not None
    publish_to(store, seed=1)
    publish_to(Store(root, "b"))
    worker.poll()
    assert worker.news.of("a") is None
    assert (worker.version("a"), worker.version("b")) == (2, 1)
    group.look(times=2)
    assert worker.news.of("a") is not None


def test_a_supervisor_that_has_ended_is_no_fault_of_the_store(
    root: Path, groups: ExitStack
) -> None:
    store = Store(root, "a")
    publish_to(store)
    group, worker = start_impatient(groups, root, "a")
    group.look()
    group.watch.close()
    publish_to(store, seed=1)
    polled(worker, lambda: worker.version("a") == 2)


def test_a_worker_that_has_ended_is_sent_nothing_more(root: Path, groups: ExitStack) -> None:
    publish_to(Store(root, "a"))
    group = start(groups, root, ["a"])
    group.look()
    group.workers.pop().close()
    group.look(times=2)
    assert [line.is_closed for line in group.watch._lines.values()] == [False, True]
    assert group.workers[0].version("a") == 1


def test_the_line_of_a_worker_that_is_replaced_is_closed(root: Path, groups: ExitStack) -> None:
    """Also while a look at a store that hangs sends nothing: workers may be replaced many times."""
    watch = StoreWatch(root, ["*"])
    with closing(watch):
        for _ in range(3):
            with watch.line(1):
                first = watch._lines[1]
            with watch.line(1):
                assert first.is_closed
            assert len(watch._lines) == 1


def test_looks_that_take_long_are_waited_for_but_not_for_ever(
    root: Path, groups: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else all workers would poll a slow store as well, and make it slower."""
    now = 1000.0
    monkeypatch.setattr(store_news, "time", SimpleNamespace(monotonic=lambda: now))
    group = start(groups, root, ["*"], 1)
    (worker,) = group.workers
    worker.news._poll_seconds, waited = 0.5, []
    for seconds in (0.5, 4, 3600):
        now += seconds
        group.look()
        waited.append(worker.news._wait)
    assert waited == [1.5, 12.0, 15.0]


@pytest.mark.parametrize("broken", ["{", ""])
def test_a_model_that_cannot_be_read_is_left_to_the_workers(
    broken: str, root: Path, groups: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        publish_to(Store(root, name))
    group = start(groups, root, ["a", "b"])
    group.look(times=2)
    aliases = root / "a" / "aliases.json"
    text = aliases.read_text()
    aliases.write_text(broken)
    group.look()
    for worker in group.workers:
        assert worker.news.of("a") is None
        assert worker.news.of("b") is not None
        assert worker.models.get("a").store_state.fault
        assert worker.version("a") == 1
    assert "the store cannot be read" in caplog.text
    aliases.write_text(text)
    group.look(times=2)
    assert not any(worker.models.get("a").store_state.fault for worker in group.workers)


def test_what_is_too_long_for_a_message_is_asked_of_the_store(
    root: Path, groups: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_to(Store(root, "a"))
    group = start(groups, root, ["*"], 1)
    names = ["a", *(f"{'x' * 50}-{number}" for number in range(8000))]
    monkeypatch.setattr(group.watch, "_names", lambda: names)
    monkeypatch.setattr(group.watch, "_stamps", lambda models: dict.fromkeys(models, "same"))
    (worker,) = group.workers
    group.look()
    assert worker.news.of("a") is None
    assert worker.news.names() == ["a"]  # as the folder has it
    assert worker.version("a") == 1
    group.look()
    assert worker.news.of("a") is not None
    assert worker.news.names() == ["a"]


def test_a_look_is_one_message(root: Path) -> None:
    """A stream would have to be cut into messages again, and could stop in the middle of one."""
    publish_to(Store(root, "a"))
    watch = StoreWatch(root, ["a"])
    with closing(watch), watch.line(1) as line, socket.socket(fileno=os.dup(line)) as ours:
        watch.look()
        watch.look()
        assert ours.recv(1 << 18) == b'{"changed": null, "unknown": [], "names": null}'
        assert ours.recv(1 << 18) == b'{"changed": [], "unknown": []}'


def test_a_worker_that_hears_nothing_of_an_object_store_lists_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask for each of a thousand models would be a thousand requests, in every worker."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    bucket = parse_location("s3://bucket/store")
    assert isinstance(bucket, Bucket)
    listing: Any = StampListing(bucket)
    listing._objects = ListedObjects("a/aliases.json")
    watch = StoreWatch(root, ["*"])
    with closing(watch), watch.line(1) as line:
        news = StoreNews(os.dup(line), 0.01, listing.names, listing)
    with closing(news._line):
        news.refresh()
        assert news.of("a") is not None
        assert news.names() == ["a"]
        assert listing._objects.asked == 1


def test_an_object_store_that_cannot_be_listed_is_not_asked_for_each_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    watch = StoreWatch(parse_location("s3://bucket/store"), ["a", "b"])
    objects = ListedObjects("a/aliases.json", "b/aliases.json")
    monkeypatch.setattr(watch._listing, "_objects", objects)
    with closing(watch), watch.line(1) as line:
        news = StoreNews(os.dup(line), 5.0, list)
        watch.look()
        news.refresh()
        known = {name: news.of(name) for name in "ab"}
        assert None not in known.values()
        objects.fails = True
        watch.look()
        news.refresh()
        assert [news.of(name) for name in "ab"] == [None, None]
        assert not watch._reader._seen
        objects.fails = False
        watch.look()
        news.refresh()
        assert None not in [news.of(name) for name in "ab"]
    news._line.close()
