"""A supervisor's watch of a store, and what its workers have of the store, in one process."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.reader import StoreReader
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.lifecycle.store_news import StoreNews
from mlpserve_server.lifecycle.store_watch import StoreWatch

__all__ = ["Group", "StartGroup", "Worker", "counted", "started_groups"]


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
        """End its threads, and receive no more."""
        self.models.close()
        self.news._line.close()

    def version(self, name: str) -> int:
        """The version that answers; 0 for none."""
        current = self.models.get(name).current
        return current.manifest.version if current else 0


class Group:
    """A supervisor's watch, and some workers that it polls for."""

    def __init__(
        self, root: Path, patterns: list[str], count: int = 2, watched: list[str] | None = None
    ) -> None:
        self.root, self.patterns = root, patterns
        self.watch = StoreWatch(root, watched or patterns)
        self.workers = [self.start_worker() for _ in range(count)]

    def start_worker(self, poll_seconds: float = 5.0) -> Worker:
        """A worker; with this interval it waits for an update rather than for its own poll."""
        with self.watch.line(len(self.watch._lines)) as line:
            return Worker(self.root, self.patterns, line, poll_seconds)

    def poll(self, times: int = 1) -> None:
        """Look, and have every worker act on it."""
        for _ in range(times):
            self.watch.poll()
            for worker in self.workers:
                worker.poll()

    def close(self) -> None:
        """End the workers and the watch."""
        for worker in self.workers:
            worker.close()
        self.watch.close()


StartGroup = Callable[..., Group]


@contextmanager
def started_groups(root: Path) -> Iterator[StartGroup]:
    """Yield what starts a group for patterns, as Group does; all are closed at the end."""
    with ExitStack() as stack:

        def start(*arguments: Any) -> Group:
            group = Group(root, *arguments)
            stack.callback(group.close)
            return group

        yield start


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
