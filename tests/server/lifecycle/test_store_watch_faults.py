"""No worker depends on the polls of its supervisor, and none keeps them from another."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlpserve_model import Store
from mlpserve_model.store.location import Bucket, parse_location
from mlpserve_model.store.object_client import Entry
from mlpserve_model.store.stamps import StampListing
from mlpserve_server.lifecycle import store_news
from mlpserve_server.lifecycle.store_news import StoreNews
from mlpserve_server.lifecycle.store_watch import StoreWatch
from tests.support.publishing import publish_to
from tests.support.waiting import eventually
from tests.support.workers import Group, StartGroup, Worker, started_groups


@pytest.fixture
def root(store: Store) -> Path:
    return store.folder.parent


@pytest.fixture
def start_group(root: Path) -> Iterator[StartGroup]:
    """Start a watch and its workers; they are closed after the test."""
    with started_groups(root) as start:
        yield start


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


def polled(worker: Worker, until: Callable[[], bool]) -> None:
    def poll() -> bool:
        worker.poll()
        return until()

    eventually(poll)


def start_impatient(start_group: StartGroup, pattern: str) -> tuple[Group, Worker]:
    """A group of one worker that polls by itself as soon as it receives nothing."""
    group = start_group([pattern], 0)
    group.workers.append(group.start_worker(poll_seconds=0.01))
    return group, group.workers[0]


def test_a_worker_that_does_not_read_keeps_none_waiting_and_misses_nothing(
    root: Path, start_group: StartGroup
) -> None:
    stores = [Store(root, name) for name in "abc"]
    for store in stores:
        publish_to(store)
    group = start_group(["*"])
    group.poll(times=2)
    stopped = group.workers.pop()
    for store in stores:
        publish_to(store, seed=1)
        group.poll(times=12)  # Linux keeps ten messages for it
        assert group.workers[0].version(store.model) == 2
    group.workers.append(stopped)
    stopped.poll()
    group.poll()
    assert [stopped.version(name) for name in "abc"] == [2, 2, 2]


def test_a_worker_that_receives_nothing_polls_by_itself_and_waits_again(
    root: Path, start_group: StartGroup
) -> None:
    store = Store(root, "a")
    publish_to(store)
    group, worker = start_impatient(start_group, "*")
    worker.poll()
    assert worker.version("a") == 1  # the first poll waits for nothing
    group.poll()
    assert worker.news.of("a") is not None
    publish_to(store, seed=1)
    publish_to(Store(root, "b"))
    worker.poll()
    assert worker.news.of("a") is None
    assert (worker.version("a"), worker.version("b")) == (2, 1)
    group.poll(times=2)
    assert worker.news.of("a") is not None


def test_a_supervisor_that_has_ended_is_no_fault_of_the_store(
    root: Path, start_group: StartGroup
) -> None:
    store = Store(root, "a")
    publish_to(store)
    group, worker = start_impatient(start_group, "a")
    group.poll()
    group.watch.close()
    publish_to(store, seed=1)
    polled(worker, lambda: worker.version("a") == 2)


def test_a_worker_that_has_ended_is_sent_nothing_more(root: Path, start_group: StartGroup) -> None:
    publish_to(Store(root, "a"))
    group = start_group(["a"])
    group.poll()
    group.workers.pop().close()
    group.poll(times=2)
    assert [line.is_closed for line in group.watch._lines.values()] == [False, True]
    assert group.workers[0].version("a") == 1


def test_the_line_of_a_worker_that_is_replaced_is_closed(root: Path) -> None:
    """Also while a poll of a store that hangs sends nothing: workers may be replaced many times."""
    watch = StoreWatch(root, ["*"])
    with closing(watch):
        for _ in range(3):
            with watch.line(1):
                first = watch._lines[1]
            with watch.line(1):
                assert first.is_closed
            assert len(watch._lines) == 1


def test_polls_that_take_long_are_waited_for_but_not_for_ever(
    root: Path, start_group: StartGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else all workers would poll a slow store as well, and make it slower."""
    now = 1000.0
    monkeypatch.setattr(store_news, "time", SimpleNamespace(monotonic=lambda: now))
    group = start_group(["*"], 1)
    (worker,) = group.workers
    worker.news._poll_seconds, waited = 0.5, []
    for seconds in (0.5, 4, 3600):
        now += seconds
        group.poll()
        waited.append(worker.news._wait)
    assert waited == [1.5, 12.0, 15.0]


@pytest.mark.parametrize("broken", ["{", ""])
def test_a_model_that_cannot_be_read_is_left_to_the_workers(
    broken: str, root: Path, start_group: StartGroup, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        publish_to(Store(root, name))
    group = start_group(["a", "b"])
    group.poll(times=2)
    aliases = root / "a" / "aliases.json"
    text = aliases.read_text()
    aliases.write_text(broken)
    group.poll()
    for worker in group.workers:
        assert worker.news.of("a") is None
        assert worker.news.of("b") is not None
        assert worker.models.get("a").store_state.fault
        assert worker.version("a") == 1
    assert "the store cannot be read" in caplog.text
    aliases.write_text(text)
    group.poll(times=2)
    assert not any(worker.models.get("a").store_state.fault for worker in group.workers)


def test_what_is_too_long_for_a_message_is_asked_of_the_store(
    root: Path, start_group: StartGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_to(Store(root, "a"))
    group = start_group(["*"], 1)
    names = ["a", *(f"{'x' * 50}-{number}" for number in range(8000))]
    monkeypatch.setattr(group.watch, "_names", lambda: names)
    monkeypatch.setattr(group.watch, "_stamps", lambda models: dict.fromkeys(models, "same"))
    (worker,) = group.workers
    group.poll()
    assert worker.news.of("a") is None
    assert worker.news.names() == ["a"]  # as the folder has it
    assert worker.version("a") == 1
    group.poll()
    assert worker.news.of("a") is not None
    assert worker.news.names() == ["a"]


def test_a_worker_that_receives_nothing_of_an_object_store_lists_it(
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
        watch.poll()
        news.refresh()
        known = {name: news.of(name) for name in "ab"}
        assert None not in known.values()
        objects.fails = True
        watch.poll()
        news.refresh()
        assert [news.of(name) for name in "ab"] == [None, None]
        assert not watch._reader._seen
        objects.fails = False
        watch.poll()
        news.refresh()
        assert None not in [news.of(name) for name in "ab"]
    news._line.close()
