"""Calls whose requests are on their way to the event loop of the direct transport."""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from mlpserve_server.dataplane.admission import NO_MEMORY, ByteLimiter
from mlpserve_server.errors import Overloaded, ServingError, TooSlow
from mlpserve_server.transport.grpc_core import ServerCall

__all__ = [
    "MAX_WAIT_SECONDS",
    "SLOW_SECONDS",
    "TOO_SLOW_SECONDS",
    "RequestReader",
    "no_memory",
    "too_slow",
]

# A request that is not here by then no longer keeps others waiting; later, it is given up.
SLOW_SECONDS, TOO_SLOW_SECONDS = 1.0, 30.0
# The same for requests that should be small.
SMALL_SLOW_SECONDS = 0.05
# Calls whose requests are slow; the oldest beyond that are given up earlier.
MAX_SLOW = 1024
# How long a call may wait, from its arrival, for the memory that reading its request may take.
MAX_WAIT_SECONDS = 10.0


def no_memory() -> Overloaded:
    """Return the refusal of a call for which there is no memory."""
    return Overloaded(NO_MEMORY)


def too_slow(seconds: float) -> TooSlow:
    """Return the refusal of a call whose request does not come in this time."""
    return TooSlow(f"no request in {seconds:g} s")


class RequestReader:
    """Reads the requests of calls, `at_once` at most; the others wait unread.

    How large a request is shows when it is here: gRPC has one maximum for all methods of a
    server. So each read reserves the memory of the largest one until then, and waits unread while
    it is not free; or, of a method whose requests are small, reserves nothing, and is given up
    when memory is short.
    """

    def __init__(
        self,
        on_request: Callable[[ServerCall, bytes], None],
        on_end: Callable[[ServerCall], None],
        bytes_limit: ByteLimiter,
        reserved: int = 0,
        at_once: int = sys.maxsize,
    ) -> None:
        """Make a reader.

        Args:
            on_request: Gets each call with its request.
            on_end: Gets each call whose request ended before it was complete.
            bytes_limit: Where the reads reserve.
            reserved: The bytes that a read reserves.
            at_once: The maximum number of reads at a time.

        """
        self._on_request = on_request
        self._on_end = on_end
        self._bytes_limit = bytes_limit
        self._reserved = reserved
        self.at_once = at_once
        self._unread: deque[ServerCall] = deque()
        self._reading: dict[ServerCall, float] = {}  # since when, the oldest first
        self._slow: dict[ServerCall, float] = {}

    @property
    def pending(self) -> int:
        """The number of calls whose requests are being read."""
        return len(self._reading) + len(self._slow)

    @property
    def idle(self) -> int:
        """The number of calls that nobody else waits behind: slow ones, and those not read yet."""
        return len(self._slow) + self.unread

    @property
    def unread(self) -> int:
        """The number of calls that wait to be read."""
        return len(self._unread)

    def add(self, call: ServerCall) -> None:
        """Read the request of a call, now or when its turn has come."""
        # Nearly always nothing waits, and the call need not either.
        if self._unread or len(self._reading) >= self.at_once - 1 or not self._begin(call):
            self._unread.append(call)
            self.read()

    def read(self) -> None:
        """Read what has waited for its turn, as far as the limits allow."""
        while self._unread and len(self._reading) < self.at_once:
            place = self._next()
            if place is None or not self._begin(self._unread[place]):
                return
            del self._unread[place]

    def make_room(self, call: ServerCall) -> ServerCall | None:
        """Take out, for a call, the last one of the connection with the most calls unread.

        Returns:
            The call that was taken out; None if that connection is the call's own, or has one only.

        """
        unread = Counter(other.peer() for other in self._unread)
        peer, count = unread.most_common(1)[0] if unread else ("", 0)
        if count < 2 or unread[call.peer()] >= count - 1:
            return None
        last = next(other for other in reversed(self._unread) if other.peer() == peer)
        self._unread.remove(last)
        return last

    def take_overdue(self) -> Iterator[tuple[ServerCall, ServingError]]:
        """Yield the calls that have waited for too long, and why; what still comes is ignored."""
        now = time.monotonic()
        while self._unread and self._unread[0].started <= now - MAX_WAIT_SECONDS:
            yield self._unread.popleft(), no_memory()
        slow_seconds = SLOW_SECONDS if self._reserved else SMALL_SLOW_SECONDS
        for call in _older(self._reading, now - slow_seconds):
            self._slow[call] = self._reading.pop(call)
            self._free(call)
        too_many = list(self._slow)[:-MAX_SLOW]
        for call in too_many or _older(self._slow, now - TOO_SLOW_SECONDS):
            del self._slow[call]
            yield call, too_slow(TOO_SLOW_SECONDS)

    def take_unreserved(self, seconds: float) -> Iterator[ServerCall]:
        """Yield the calls that have been read for longer than this without a reservation."""
        before = time.monotonic() - seconds
        for reading in (self._reading, self._slow):
            for call in _older(reading, before):
                if not call.held:
                    del reading[call]
                    yield call

    def _next(self) -> int | None:
        """Return the place of the unread call that is read next, None if it has to wait."""
        alone = len(self._unread) == 1 and len(self._reading) < self.at_once - 1
        if alone or not (self._reading or self._slow):  # nearly always: what follows takes longer
            return 0
        reads = Counter(call.peer() for call in self._reading)
        slow = Counter(call.peer() for call in self._slow)
        peers = [call.peer() for call in self._unread]
        place = min(range(len(peers)), key=lambda n: reads[peers[n]] + slow[peers[n]])
        return place if reads[peers[place]] < max(1, self.at_once - 1) else None

    def _begin(self, call: ServerCall) -> bool:
        """Begin to read; return False, and do nothing, if the memory is not free."""
        if self._reserved:
            if not self._bytes_limit.take(self._reserved):
                return False
            call.held = self._reserved
        self._reading[call] = time.monotonic()
        call.receive(self._received)
        return True

    def _received(self, call: ServerCall, request: bytes | None) -> None:
        if not self._reading.pop(call, None) and not self._slow.pop(call, None):
            return  # it was given up
        if call.held:
            self._free(call)
        if request is None:
            self._on_end(call)
        else:
            self._on_request(call, request)
        if self._unread:
            self.read()

    def _free(self, call: ServerCall) -> None:
        if call.held:
            self._bytes_limit.release(call.held)
            call.held = 0


def _older(calls: dict[ServerCall, float], than: float) -> list[ServerCall]:
    return [call for call, since in calls.items() if since <= than]
