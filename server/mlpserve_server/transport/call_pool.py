"""Thread pools that know what has become of their calls: read, computed, sent, or given up."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.errors import Abandoned, NoRequest, ServingError
from mlpserve_server.transport.grpc_core import end_call
from mlpserve_server.transport.interceptors import current_call
from mlpserve_server.transport.pools import PatientPool
from mlpserve_server.transport.request_reader import (
    MAX_WAIT_SECONDS,
    SLOW_SECONDS,
    TOO_SLOW_SECONDS,
    no_memory,
    too_slow,
)
from mlpserve_server.transport.response_sender import PRESSED_SECONDS, UNREAD_SECONDS
from mlpserve_server.transport.services import SMALL_BYTES
from mlpserve_server.transport.status import refusal_of

__all__ = ["CallPool", "next_request", "without_request"]

# More would take the interpreter's lock from each other, and memory.
_COMPUTED_AT_ONCE = 8
# Interval at which a call that waits for memory checks whether it was given up.
_WAIT_SECONDS = 0.05
# A request that has been on its way for more checks is not a small one. Not seconds: what keeps the
# process from taking in a request that has come keeps it from looking too.
_LONG_READ_CHECKS = 5


def next_request(requests: Iterator[bytes]) -> bytes | None:
    """Return the request of a call; None when none comes."""
    try:
        return next(requests, None)
    except grpc.RpcError as error:
        # The call keeps it, and its frames keep the call: a cycle that would hold a request that
        # still arrives until garbage is collected.
        error.__traceback__ = None
        return None


def without_request(context: grpc.ServicerContext) -> ServingError:
    """Return the refusal of a call that has ended without a request."""
    return NoRequest() if context.is_active() else Abandoned("the caller is gone")


@dataclass(slots=True)
class _Read:
    """A request that is being read, or waits for memory.

    Attributes:
        since: by time.monotonic.
        is_small: whether it should be a small one, for which nothing is reserved.
        reserved: the bytes that it reserves.
        peer: its connection; unknown of a small one.
        waits: whether it waits for memory.
        checks: how often it was checked.
    """

    since: float
    is_small: bool
    reserved: int
    peer: str = ""
    waits: bool = False
    checks: int = 0


class CallPool(PatientPool):
    """A pool that knows what has become of its calls.

    `limit` gives the number of calls that it may hold: running, waiting for a thread, or with an
    answer that their callers have not read.
    """

    def __init__(self, name: str, limits: Limits, limit: Callable[[], int]) -> None:
        super().__init__(name)
        self._turns = threading.Semaphore(_COMPUTED_AT_ONCE)
        self._computing = 0
        self._limits = limits
        self._limit = limit
        # What is taken out of either is ended by the one who took it.
        self._reading: dict[grpc.ServicerContext, _Read] = {}
        self._sending: dict[grpc.ServicerContext, float] = {}  # since when
        self._given_up: dict[grpc.ServicerContext, ServingError] = {}

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

    def read(
        self, requests: Iterator[bytes], context: grpc.ServicerContext, reserved: int
    ) -> bytes:
        """Return the request of a call.

        Args:
            requests: An iterator that gives it.
            context: The call.
            reserved: Bytes to reserve meanwhile; 0 for a request that should be small.

        Raises:
            ServingError: The bytes are not free in time, no request comes, or it is given up.

        """
        if reserved:
            self._reserve(context, reserved)
        else:
            self._reading[context] = _Read(time.monotonic(), is_small=True, reserved=0)
        request = next_request(requests)
        with self._lock:
            read = self._reading.pop(context, None)
        if read is None:
            raise self._given_up.pop(context)
        self._limits.bytes.release(read.reserved)
        if request is None:
            raise without_request(context)
        return request

    def _reserve(self, context: grpc.ServicerContext, size: int) -> None:
        """Wait for the memory of a request that may be large; raise Overloaded if it is not free.

        The calls of the connection with the fewest reads go first: one that sends half of its
        requests keeps its own calls waiting, not those of others.
        """
        mine = _Read(time.monotonic(), False, 0, context.peer(), waits=True)
        self._reading[context] = mine
        ends = time.monotonic() + _wait_seconds()

        def is_next() -> bool:
            reads = list(self._reading.values())
            by_peer = Counter(read.peer for read in reads if not read.waits)
            return all(by_peer[mine.peer] <= by_peer[read.peer] for read in reads if read.waits)

        while not (taken := self._limits.bytes.take(size, _WAIT_SECONDS, is_next)):
            if time.monotonic() > ends or context not in self._reading:
                break
        with self._lock:
            given_up = self._given_up.pop(context, None)
            if taken and not given_up:
                mine.since, mine.reserved, mine.waits = time.monotonic(), size, False
                return
            self._reading.pop(context, None)
        self._limits.bytes.release(size if taken else 0)
        raise given_up or no_memory()

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
    def computes(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Return a context in which a call is computed, and delays a stop; waits for its turn.

        Raises:
            Abandoned: its caller has not waited.

        """
        with self._lock:
            self._computing += 1
        try:
            with self._turns:
                # By the clock too: that a deadline has passed is told a moment later.
                if not (context.is_active() and context.time_remaining()):
                    raise Abandoned("the caller no longer waits")
                yield
        finally:
            with self._lock:
                self._computing -= 1

    def watch_sending(self, context: grpc.ServicerContext, response: bytes) -> None:
        """Count the response as in use until its caller has read it or is gone."""
        size = len(response) if len(response) > SMALL_BYTES else 0
        self._limits.bytes.add(size)
        self._sending[context] = time.monotonic()

        def sent() -> None:
            self._sending.pop(context, None)
            self._limits.bytes.release(size)

        if not context.add_callback(sent):
            sent()

    def give_up(self, pressed: bool) -> None:
        """End calls whose requests do not come or whose answers are not read.

        Under pressure, also those whose requests should be small and are not.
        """
        now = time.monotonic()
        with self._lock:
            for context, read in list(self._reading.items()):
                self._check_read(context, read, now - read.since, pressed)
            if self.crowded:
                self._give_up_one(now - SLOW_SECONDS)
        unread = PRESSED_SECONDS if pressed or self.full else UNREAD_SECONDS
        for context, since in list(self._sending.items()):
            if now - since > unread:
                context.cancel()

    def _check_read(
        self, context: grpc.ServicerContext, read: _Read, seconds: float, pressed: bool
    ) -> None:
        """Give up a request that has been read for this long, or what it reserves, if need be."""
        if read.waits:
            return
        read.checks += 1
        if pressed and not read.reserved and read.checks > _LONG_READ_CHECKS:
            self._stop_reading(context, no_memory())
        elif read.is_small and self.crowded and seconds > SLOW_SECONDS:
            self._stop_reading(context, too_slow(SLOW_SECONDS))
        elif seconds > TOO_SLOW_SECONDS:
            self._stop_reading(context, too_slow(TOO_SLOW_SECONDS))
        elif read.reserved and seconds > SLOW_SECONDS:
            self._limits.bytes.release(read.reserved)
            read.reserved = 0

    def _give_up_one(self, before: float) -> None:
        """Give up a slow call of a connection with many of them: others need its thread."""
        slow = {
            context: read
            for context, read in self._reading.items()
            if not read.is_small and read.since < before
        }
        counts = Counter(read.peer for read in slow.values()).most_common(1)
        # More than are computed at once gain nothing by waiting together.
        if counts and counts[0][1] > (1 if self.full else _COMPUTED_AT_ONCE):
            last = next(c for c in reversed(slow) if slow[c].peer == counts[0][0])
            self._stop_reading(last, no_memory() if slow[last].waits else too_slow(SLOW_SECONDS))

    def _stop_reading(self, context: grpc.ServicerContext, error: ServingError) -> None:
        self._given_up[context] = error
        self._limits.bytes.release(self._reading.pop(context).reserved)
        code, details, _ = refusal_of(error)
        end_call(context, code, details)


def _wait_seconds() -> float:
    """Return how long this thread's call may still wait for memory, counted from its arrival."""
    call = current_call()
    return max(0.0, call.started + MAX_WAIT_SECONDS - time.monotonic()) if call else 0.0
