"""What is taken on: so many waiting calls and so many rows, and the rest is refused at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlpserve_server.errors import Overloaded

__all__ = ["Rows", "Waiting"]

# So many calls may always wait: what a few clients keep in flight is no overload.
ALWAYS = 4
_SMOOTHING = 1 / 8


class Waiting:
    """How many calls may wait for a prediction: at most `most`, and fewer of a slow model.

    A queue that grows makes every answer later, and answers none of them sooner. Its bound
    follows the pace of the model, so that a call waits for about `seconds` at most.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._pace = 0.0  # seconds a call; it grows from here, as one slow answer says little
        self.limit = most

    def computed(self, calls: int, cpu_seconds: float) -> None:
        """The answers to so many calls were computed together, in this CPU time.

        CPU time, since a server that other programs keep from running is not overloaded.
        """
        pace = cpu_seconds / calls
        self._pace += (pace - self._pace) * _SMOOTHING
        in_time = self._seconds / self._pace if self._pace else self._most
        self.limit = int(min(self._most, max(ALWAYS, in_time)))


class Rows:
    """How many rows of batches are in flight, from any thread: at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def admitted(self, rows: int) -> Iterator[None]:
        """A context in which so many more are in flight; raises Overloaded."""
        with self._lock:
            if self._count + rows > self._most:
                raise Overloaded(f"more than {self._most} rows of batches would be in flight")
            self._count += rows
        try:
            yield
        finally:
            with self._lock:
                self._count -= rows
