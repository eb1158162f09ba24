"""Calls whose requests are on their way to the direct transport's loop."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

from mlpserve_server.transport.grpc_core import Call

__all__ = ["TOO_SLOW_SECONDS", "Intake"]

# A request that is not here by then no longer keeps others waiting; later, it is given up.
SLOW_SECONDS, TOO_SLOW_SECONDS = 1.0, 30.0


class Intake:
    """Reads the requests of calls, so many at once; the others wait unread.

    `then` gets each call with its request; `gone` gets the calls whose callers went away before.
    """

    def __init__(
        self,
        then: Callable[[Call, bytes], None],
        gone: Callable[[Call], None],
        at_once: int = sys.maxsize,
    ) -> None:
        self._then = then
        self._gone = gone
        self._at_once = at_once
        self._unread: deque[Call] = deque()
        self._reading: dict[Call, float] = {}  # since when, the oldest first
        self._slow: dict[Call, float] = {}

    def take(self, call: Call) -> None:
        """Read its request, now or when its turn has come."""
        self._unread.append(call)
        self._read()

    def given_up(self) -> Iterator[Call]:
        """The calls whose requests have not come in time; what still comes of them is ignored."""
        now = time.monotonic()
        for call in _older(self._reading, now - SLOW_SECONDS):
            self._slow[call] = self._reading.pop(call)
        for call in _older(self._slow, now - TOO_SLOW_SECONDS):
            del self._slow[call]
            yield call
        self._read()

    def _read(self) -> None:
        while self._unread and len(self._reading) < self._at_once:
            call = self._unread.popleft()
            self._reading[call] = time.monotonic()
            call.receive(self._received)

    def _received(self, call: Call, request: bytes | None) -> None:
        if not self._reading.pop(call, None) and not self._slow.pop(call, None):
            return  # it was given up
        if request is None:
            self._gone(call)
        else:
            self._then(call, request)
        if self._unread:
            self._read()


def _older(calls: dict[Call, float], than: float) -> list[Call]:
    return [call for call, since in calls.items() if since <= than]
