"""The polls of several models, some at the same time."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent import futures
from contextlib import suppress

from mlpserve_server.lifecycle.manager import ModelManager

__all__ = ["Polls"]

# One that loads slowly delays few others.
_AT_ONCE = 4
# The longest wait for polls; a model that takes longer is left alone until it has ended.
_WAIT_SECONDS = 1.0


class Polls:
    """Polls models on a few threads; `run` belongs to one thread.

    Args:
        poll: Polls the model of a name.

    """

    def __init__(self, poll: Callable[[str, ModelManager], None]) -> None:
        self._poll = poll
        self._pool = futures.ThreadPoolExecutor(_AT_ONCE, "poll")
        self._due: deque[tuple[str, ModelManager]] = deque()
        self._under_way: set[ModelManager] = set()  # those that are due, and those at it
        self._threads: list[futures.Future[None]] = []

    def is_under_way(self, manager: ModelManager) -> bool:
        """Return True for a model whose last poll has not ended."""
        return manager in self._under_way

    def run(self, models: Iterable[tuple[str, ModelManager]]) -> None:
        """Poll models, none of which is under way; return when all are done, or after a second."""
        for name, manager in models:
            self._under_way.add(manager)
            self._due.append((name, manager))
        self._threads = [thread for thread in self._threads if not thread.done()]
        with suppress(RuntimeError):  # closed meanwhile
            for _ in range(min(_AT_ONCE - len(self._threads), len(self._due))):
                self._threads.append(self._pool.submit(self._poll_due))
        futures.wait(self._threads, timeout=_WAIT_SECONDS)

    def close(self) -> None:
        """Poll no more; a poll that has begun is not waited for."""
        self._due.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _poll_due(self) -> None:
        """Poll what is due, one by one: a task of the pool for each took longer than its poll."""
        while True:
            try:
                name, manager = self._due.popleft()
            except IndexError:
                return
            try:
                self._poll(name, manager)
            finally:
                self._under_way.discard(manager)
