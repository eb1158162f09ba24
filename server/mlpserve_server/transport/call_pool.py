"""Thread pools that know what has become of their calls: read, computed, or sent."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.errors import Abandoned
from mlpserve_server.transport.pools import PatientPool
from mlpserve_server.transport.request_reader import no_memory
from mlpserve_server.transport.request_reads import RequestReads
from mlpserve_server.transport.response_sender import PRESSED_SECONDS, UNREAD_SECONDS
from mlpserve_server.transport.services import SMALL_BYTES
from mlpserve_server.transport.turns import Turns

__all__ = ["CallPool", "Turn"]

# Calls that are answered at once, some of which may wait for a store.
_AT_ONCE = 8
# Slow requests of a connection, while calls wait for a thread.
_SLOW_READS = 8


class Turn(NamedTuple):
    """How an answer is computed.

    Attributes:
        goes_on: To be called between steps; returns True while the caller waits for more of them.
        may_load: Whether a version may be read from the store.

    """

    goes_on: Callable[[], bool]
    may_load: bool


class CallPool(PatientPool):
    """A pool that knows what has become of its calls.

    `limit` gives the number of calls that it may hold: running, waiting for a thread, or with an
    answer that their callers have not read. `turns` are those of the calls that are computed.
    """

    def __init__(
        self, name: str, limits: Limits, limit: Callable[[], int], at_once: int = _AT_ONCE
    ) -> None:
        super().__init__(name)
        self.turns = Turns(at_once)
        self._computing = 0
        self._limits = limits
        self._limit = limit
        self.reads = RequestReads(limits.bytes, limits.max_request)
        # Of each answer on its way: since when, and the bytes that are counted for it.
        self._sending: dict[grpc.ServicerContext, tuple[float, int]] = {}

    @property
    def full(self) -> bool:
        """Whether another call would be one too many."""
        return self.open_calls + len(self._sending) >= self._limit()

    @property
    def computing(self) -> bool:
        """Whether there is a call whose request is here and whose answer is not."""
        return self._computing > 0

    @property
    def busy(self) -> bool:
        """Whether it holds any call."""
        return bool(self.open_calls or self._sending)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Return a context in which these bytes count as in use; raise Overloaded if not free."""
        if size and not self._limits.bytes.take(size):
            raise no_memory()
        try:
            yield
        finally:
            self._limits.bytes.release(size)

    @contextmanager
    def computes(self, context: grpc.ServicerContext, turns: Turns, model: str) -> Iterator[Turn]:
        """Return a context in which a call is computed, and delays a stop; waits for its turn.

        Args:
            context: The call.
            turns: Where it waits.
            model: What it waits for there.

        Raises:
            Abandoned: its caller has not waited.

        """
        with self._delaying_stop(), turns.turn(model) as let_others_go_first:
            # By the clock too: that a deadline has passed is told a moment later.
            if not (context.is_active() and context.time_remaining()):
                raise Abandoned("the caller no longer waits")

            def goes_on() -> bool:
                let_others_go_first()
                return context.is_active()

            yield Turn(goes_on, may_load=False)

    @contextmanager
    def loads(self, context: grpc.ServicerContext) -> Iterator[Turn]:
        """Return a context in which a call may load a version, which takes no turn from others."""
        with self._delaying_stop():
            yield Turn(context.is_active, may_load=True)

    def watch_sending(self, context: grpc.ServicerContext, response: bytes) -> None:
        """Count the response as in use until its caller has read it or is gone."""
        size = len(response) if len(response) > SMALL_BYTES else 0
        self._limits.bytes.add(size)
        self._sending[context] = time.monotonic(), size

        def sent() -> None:
            self._sending.pop(context, None)
            self._limits.bytes.release(size)

        if not context.add_callback(sent):
            sent()

    @contextmanager
    def _delaying_stop(self) -> Iterator[None]:
        with self._lock:
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1

    def give_up(self, pressed: bool) -> None:
        """End calls whose requests do not come or whose answers are not read.

        Under pressure, also those whose requests should be small and are not.
        """
        share = 1 if self.full else _SLOW_READS
        self.reads.give_up(pressed, share if self.crowded else None)
        pressed, no_bytes = pressed or self.full, self._limits.bytes.is_full
        now = time.monotonic()
        for context, (since, size) in list(self._sending.items()):
            soon = pressed or (no_bytes and size)
            if now - since > (PRESSED_SECONDS if soon else UNREAD_SECONDS):
                context.cancel()
