"""The work that the event loop has taken on: its order, and how long each part may take."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from mlpserve_server.dataplane.predictions import Outcome, Steps
from mlpserve_server.transport.turns import ModelQueue

__all__ = ["Batch", "Inflated", "WorkQueue"]

# Before the next work, events are polled for this many times as long as the work before took:
# with less, calls that are to be refused would wait unseen behind the work; without a limit,
# calls that keep coming would keep those waiting that are taken on.
_EVENTS_TO_WORK = 3
# A cancelled call is known by an event, which comes a moment later: calls are asked only after
# work as long as this, behind which they had to wait, and for a while. Before the first of them is
# worked on, the while is longer: all their requests have to be read.
_LONG_WORK_SECONDS, _BACKLOG_SECONDS, _READING_SECONDS = 0.005, 0.02, 1.0
# How long the loop waits for an event: idle, with calls that may time out, with calls at a pool.
_IDLE_SECONDS, _HOUSEKEEPING_SECONDS, _HANDED_SECONDS = 0.1, 0.01, 0.001

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Batch(Generic[C]):
    """A request that is answered in steps.

    Attributes:
        call: The call.
        steps: What is left to do, without a load from the store.
        again: Returns all steps, with a load, for a thread that may block.

    """

    call: C
    steps: Steps
    again: Callable[[], Steps]


class Inflated(NamedTuple):
    """A request that a thread has inflated.

    Attributes:
        request: It, as its sender had it.
        then: Takes it on, with its call.

    """

    request: bytes
    then: Callable[[Any, bytes], object]


class WorkQueue(Generic[C]):
    """Single requests that share a product, batches by turns, and calls that a pool works on.

    It belongs to one thread, but for `hand_back`. `singles` and `infers` are small requests;
    `began` is when the last work did.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.singles: list[tuple[C, bytes]] = []
        self.infers: list[tuple[C, bytes]] = []
        self._batches: ModelQueue[Batch[C]] = ModelQueue()
        self._handed = 0
        self._handed_back: deque[tuple[C, Outcome | Inflated]] = deque()
        self.began = 0.0
        self._work_seconds = 0.0  # how long the last work took
        self._backlog_until = 0.0
        self._next_housekeeping = 0.0

    def __bool__(self) -> bool:
        """Return True while there is something to do at once."""
        return bool(self.singles or self.infers or self._batches or self._handed_back)

    def take_singles(self) -> list[tuple[C, bytes]]:
        """Return the single requests, which are taken out."""
        taken, self.singles = self.singles, []
        return taken

    def take_infers(self) -> list[tuple[C, bytes]]:
        """Return the small requests of the Open Inference Protocol, which are taken out."""
        taken, self.infers = self.infers, []
        return taken

    def put_batch(self, model: str, batch: Batch[C]) -> None:
        """Put a batch of a model behind its others."""
        self._batches.put(model, batch)

    def take_batch(self) -> Batch[C] | None:
        """Return a batch, which is taken out: models take turns, and the batches of each do."""
        return self._batches.take()

    def count_batches(self) -> dict[str, int]:
        """Return the number of batches of each model."""
        return self._batches.count()

    def hand_over(self) -> None:
        """Count one call more that a pool works on."""
        self._handed += 1

    def hand_back(self, call: C, answer: Outcome | Inflated) -> None:
        """Put down what became of a call that was handed over; for any thread."""
        self._handed_back.append((call, answer))

    def take_handed_back(self) -> list[tuple[C, Outcome | Inflated]]:
        """Return the calls that the pool has done, which are taken out."""
        if not self._handed_back:
            return []
        taken = [self._handed_back.popleft() for _ in range(len(self._handed_back))]
        self._handed -= len(taken)
        return taken

    def patience(self, busy: bool) -> float:
        """Return how long to wait for an event; `busy` if there are calls, which time out."""
        if self:
            return 0.0
        if self._handed:
            return _HANDED_SECONDS
        return _HOUSEKEEPING_SECONDS if busy else _IDLE_SECONDS

    def events_until(self) -> float:
        """Return the time until which events are handled before work."""
        return self._clock() + _EVENTS_TO_WORK * self._work_seconds

    def begin(self) -> None:
        """Note that work begins."""
        self.began = self._clock()

    def end(self) -> None:
        """Note that the work is done."""
        now = self._clock()
        self._work_seconds = now - self.began
        if self._work_seconds > _LONG_WORK_SECONDS:
            self._backlog_until = now + _BACKLOG_SECONDS

    def has_backlog(self) -> bool:
        """Return True while there may be calls that had to wait behind long work."""
        reading = _READING_SECONDS if self._work_seconds > _LONG_WORK_SECONDS else 0.0
        return self._clock() < self._backlog_until + reading

    def housekeeping_is_due(self) -> bool:
        """Return True ten milliseconds after the last time."""
        now = self._clock()
        if now < self._next_housekeeping:
            return False
        self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
        return True
