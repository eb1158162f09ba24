"""Turns at the processor: of one model after another, and of each in the order of arrival."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

__all__ = ["ModelQueue", "Turns"]

T = TypeVar("T")


class ModelQueue(Generic[T]):
    """Items that wait: one of each model by turns."""

    def __init__(self) -> None:
        self._items: dict[str, deque[T]] = {}  # by model, whose turn is next first

    def __bool__(self) -> bool:
        """Return True while any item waits."""
        return bool(self._items)

    def put(self, model: str, item: T) -> None:
        """Put an item behind the others of its model."""
        self._items.setdefault(model, deque()).append(item)

    def put_back(self, model: str, item: T) -> None:
        """Put an item back before the others of its model, and these behind the other models."""
        items = self._items.pop(model, deque())
        items.appendleft(item)
        self._items[model] = items

    def take(self) -> T | None:
        """Return the next item, which is taken out; None if there is none."""
        if not self._items:
            return None
        model = next(iter(self._items))
        items = self._items.pop(model)
        item = items.popleft()
        if items:
            self._items[model] = items  # behind the other models
        return item

    def has_others(self, model: str) -> bool:
        """Return True while items of other models than this one wait."""
        return len(self._items) > (model in self._items)

    def count(self) -> dict[str, int]:
        """Return the number of items of each model."""
        return {model: len(items) for model, items in self._items.items()}


class Turns:
    """Lets a few calls compute at a time; for any thread.

    A call that ends hands its turn to the one that is next. A semaphore would not: whatever thread
    comes at that moment takes it, and a call of a quick model waited until a flood of another was
    over.

    Args:
        at_once: How many calls compute at a time.

    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: ModelQueue[threading.Lock] = ModelQueue()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, model: str) -> Iterator[Callable[[], None]]:
        """Return a context in which a call of a model has a turn; waits for it.

        What it gives lets calls of other models go first, if any wait.
        """
        self._take(model)
        try:
            yield partial(self._pass_on, model)
        finally:
            self._hand_on()

    def _take(self, model: str) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = _locked()
            self._waiting.put(model, mine)
        mine.acquire()

    def _pass_on(self, model: str) -> None:
        with self._lock:
            if not self._waiting.has_others(model):
                return
            mine = _locked()
            self._waiting.put_back(model, mine)
        self._hand_on()
        mine.acquire()

    def _hand_on(self) -> None:
        with self._lock:
            following = self._waiting.take()
            if following is None:
                self._free += 1
            else:
                following.release()


def _locked() -> threading.Lock:
    """Return a lock, which the call that hands on its turn releases."""
    lock = threading.Lock()
    lock.acquire()
    return lock
