"""Limits of the work that is admitted: waiting calls, rows and bytes. The rest is refused."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpserve_server.errors import Overloaded
from mlpserve_server.system.memory import MemoryWatch

if TYPE_CHECKING:
    from mlpserve_server.dataplane.fair_shares import FairShares

__all__ = ["NO_MEMORY", "ByteLimiter", "Limits", "QueueLimit", "RowLimiter"]

# As many calls may always wait: what a few clients keep in flight is not an overload.
MIN_QUEUE = 4
_SMOOTHING = 1 / 8
# Who waits for bytes asks for them again within the first of these, as long as other work allows
# within the second. The third is a long time to wait.
_MISSED_SECONDS, _BETWEEN_SECONDS, _LONG_MISSED_SECONDS = 0.2, 2.0, 0.5
NO_MEMORY = "the requests in progress take all the memory that they may"


class QueueLimit:
    """The number of calls that may wait for a prediction: `maximum`, and less for a slow model.

    A queue that grows delays every answer and gives none of them sooner. Its limit follows the
    pace of the model, so that a call waits for about `seconds` at most.
    """

    def __init__(self, maximum: int, seconds: float) -> None:
        self._maximum = maximum
        self._seconds = seconds
        self._pace = 0.0  # seconds a call; it grows from here, as one slow answer says little
        self.limit = maximum

    def record(self, calls: int, cpu_seconds: float) -> None:
        """Record that the answers to some calls were computed together in this CPU time.

        CPU time, since a server that other programs keep from running is not overloaded.
        """
        pace = cpu_seconds / calls
        self._pace += (pace - self._pace) * _SMOOTHING
        in_time = self._seconds / self._pace if self._pace else self._maximum
        self.limit = int(min(self._maximum, max(MIN_QUEUE, in_time)))


class RowLimiter:
    """Limits the rows of batches in flight; for any thread.

    While there is room, any model may have it. Beyond that, the models with rows in flight have
    equal shares: one that is flooded is refused what exceeds its share, and no other is. The first
    batch of a model is never refused, unless it exceeds the maximum by itself.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._rows: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def admitted(self, model: str, rows: int) -> Iterator[None]:
        """Return a context in which these rows of a model are in flight; raises Overloaded."""
        with self._lock:
            if rows > self._maximum or not self._has_room(model, rows):
                raise Overloaded(f"more than {self._maximum} rows of batches would be in flight")
            self._rows[model] += rows
        try:
            yield
        finally:
            with self._lock:
                self._rows[model] -= rows
                if not self._rows[model]:
                    del self._rows[model]

    def _has_room(self, model: str, rows: int) -> bool:
        own, all_rows = self._rows[model], self._rows.total()
        share = self._maximum // len(self._rows.keys() | {model})
        return not own or own + rows <= share or all_rows + rows <= self._maximum


class ByteLimiter:
    """Limits the memory of requests and answers; for any thread.

    One holder is always admitted, however large, so that a low limit refuses no call for ever.
    `count` are the bytes in use.
    """

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.maximum = maximum
        self.count = 0
        self._clock = clock
        # Since when so many bytes are missed that nobody has had meanwhile, and until when.
        self._missed_since = self._missed_at = -math.inf
        self._missed_size = 0
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        """Whether hardly anything more is admitted: by the bytes, or as somebody waits in vain."""
        return self.count > 0.9 * self.maximum or (
            self._clock() - self._missed_at < _MISSED_SECONDS
            and self._missed_at - self._missed_since > _LONG_MISSED_SECONDS
        )

    def take(
        self, size: int, seconds: float = 0, is_next: Callable[[], bool] = lambda: True
    ) -> bool:
        """Count these bytes as in use.

        Args:
            size: How many.
            seconds: How long to wait until they are free.
            is_next: Returns False while others that wait go first.

        Returns:
            False, and counts none, if they are not free.

        """
        with self._changed:
            if not self._has_room(size):
                self._miss(size)
            if not self._changed.wait_for(lambda: self._has_room(size) and is_next(), seconds):
                return False
            self.count += size
            if size >= self._missed_size:
                self._missed_at = -math.inf
            return True

    def _miss(self, size: int) -> None:
        now = self._clock()
        if now - self._missed_at > _BETWEEN_SECONDS:
            self._missed_since, self._missed_size = now, size
        self._missed_at = now

    def extend(self, held: int, size: int) -> int:
        """Count so many bytes in all as in use by who holds some; return how many that are then.

        Raises Overloaded, and counts no more, if they are not free.
        """
        if size > held and not self.take(size - held):
            raise Overloaded(NO_MEMORY)
        return max(size, held)

    def add(self, size: int) -> None:
        """Count these bytes as in use, beyond the maximum too."""
        with self._changed:
            self.count += size

    def release(self, size: int) -> None:
        """Count these bytes as free again."""
        with self._changed:
            self.count -= size
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self.count or self.count + size <= self.maximum


@dataclass(frozen=True)
class Limits:
    """What is admitted: calls that wait, bytes that are held, and the memory of the process.

    `max_request` is the largest request in bytes. `shares` are what each of several models gets of
    the calls that wait; None for one model.
    """

    queue: QueueLimit
    bytes: ByteLimiter
    memory: MemoryWatch
    max_request: int
    shares: "FairShares | None" = None

    def memory_is_short(self) -> bool:
        """Return True if the process holds much more than what is counted."""
        return self.memory.exceeded(self.bytes.count)
