"""A few threads that do parts of one task side by side.

NumPy lets go of Python's lock in its loops and in BLAS, so threads are enough. A step hands
over twice, thousands of times a second: plain queues take a quarter of an executor's time.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType

__all__ = ["Team"]

Task = Callable[[int], float]


class Team:
    """`size` members, the caller's thread among them; a context manager that ends the others.

    With `side_by_side` false the caller's thread does every member's part, one after the other:
    for processes that share the cores.
    """

    def __init__(self, size: int, side_by_side: bool = True) -> None:
        self.size = size
        self._own = 1 if side_by_side else size
        self._tasks: list[SimpleQueue[Task | None]]
        self._tasks = [SimpleQueue() for _ in range(self._own, size)]
        self._results: list[SimpleQueue[float | BaseException]]
        self._results = [SimpleQueue() for _ in self._tasks]
        for member in range(self._own, size):
            name = f"mlpserve-team-{member}"
            threading.Thread(target=self._work, args=(member,), name=name, daemon=True).start()

    def __enter__(self) -> "Team":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tasks in self._tasks:
            tasks.put(None)

    def run(self, task: Task) -> float:
        """Let every member do `task(member)`; wait for all, and return the sum of what they gave.

        What a member raises is raised here, when all have ended.
        """
        for tasks in self._tasks:
            tasks.put(task)
        try:
            total = sum(task(member) for member in range(self._own))
        finally:
            given = [results.get() for results in self._results]
        for result in given:
            if isinstance(result, BaseException):
                raise result
            total += result
        return total

    def _work(self, member: int) -> None:
        tasks, results = self._tasks[member - self._own], self._results[member - self._own]
        while (task := tasks.get()) is not None:
            try:
                results.put(task(member))
            except BaseException as error:  # raised again by run, for whoever asked for it
                results.put(error)
