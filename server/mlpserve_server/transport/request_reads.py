"""Requests that the threads of a pool read: each reserves its memory, and may be given up."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import grpc

from mlpserve_server.dataplane.admission import ByteLimiter
from mlpserve_server.errors import Abandoned, NoRequest, RequestTooLarge, ServingError
from mlpserve_server.transport.compression import inflate, inflate_large, is_compressed
from mlpserve_server.transport.grpc_core import end_call
from mlpserve_server.transport.interceptors import current_call
from mlpserve_server.transport.request_reader import (
    MAX_WAIT_SECONDS,
    SLOW_SECONDS,
    TOO_SLOW_SECONDS,
    no_memory,
    too_slow,
)
from mlpserve_server.transport.services import SMALL_BYTES
from mlpserve_server.transport.status import refusal_of

__all__ = ["RequestReads", "next_request", "without_request"]

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


class RequestReads:
    """Reads requests on their calls' threads; for any thread.

    Args:
        bytes_limit: where the memory of requests that may be large is reserved.
        max_request: the bytes that a compressed request may become.

    """

    def __init__(self, bytes_limit: ByteLimiter, max_request: int) -> None:
        self._bytes = bytes_limit
        self._max_request = max_request
        # What is taken out of it is ended by the one who took it.
        self._reading: dict[grpc.ServicerContext, _Read] = {}
        self._given_up: dict[grpc.ServicerContext, ServingError] = {}
        self._lock = threading.Lock()

    def read(
        self,
        requests: Iterator[bytes],
        context: grpc.ServicerContext,
        reserved: int,
        limit: int | None = None,
    ) -> bytes:
        """Return the request of a call.

        Args:
            requests: An iterator that gives it.
            context: The call.
            reserved: Bytes to reserve meanwhile; 0 for a request that should be small.
            limit: The bytes that a compressed one may become; None for the largest request.

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
        try:
            if request is None:
                raise without_request(context)
            if is_compressed(request):
                return self._inflated(request, read, limit or self._max_request)
            return request
        finally:
            self._bytes.release(read.reserved)

    def _inflated(self, request: bytes, read: _Read, limit: int) -> bytes:
        """Return a compressed request as its sender had it; reserve for it what is not reserved."""
        if limit <= SMALL_BYTES:
            return inflate(request, limit)
        with suppress(RequestTooLarge):
            return inflate(request, SMALL_BYTES)

        def reserve(size: int) -> None:
            read.reserved = self._bytes.extend(read.reserved, size)

        return inflate_large(request, limit, reserve)

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

        while not (taken := self._bytes.take(size, _WAIT_SECONDS, is_next)):
            if time.monotonic() > ends or context not in self._reading:
                break
        with self._lock:
            given_up = self._given_up.pop(context, None)
            if taken and not given_up:
                mine.since, mine.reserved, mine.waits = time.monotonic(), size, False
                return
            self._reading.pop(context, None)
        self._bytes.release(size if taken else 0)
        raise given_up or no_memory()

    def give_up(self, pressed: bool, share: int | None) -> None:
        """End calls whose requests do not come.

        Args:
            pressed: Whether memory is short: also those whose requests should be small and are not.
            share: How many slow calls a connection may have; None unless calls wait for a thread.

        """
        now = time.monotonic()
        with self._lock:
            for context, read in list(self._reading.items()):
                self._check(context, read, now - read.since, pressed, share is not None)
            if share is not None:
                self._give_up_one(now - SLOW_SECONDS, share)

    def _check(
        self,
        context: grpc.ServicerContext,
        read: _Read,
        seconds: float,
        pressed: bool,
        crowded: bool,
    ) -> None:
        """Give up a request that has been read for this long, or what it reserves, if need be."""
        if read.waits:
            return
        read.checks += 1
        if pressed and not read.reserved and read.checks > _LONG_READ_CHECKS:
            self._stop_reading(context, no_memory())
        elif read.is_small and crowded and seconds > SLOW_SECONDS:
            self._stop_reading(context, too_slow(SLOW_SECONDS))
        elif seconds > TOO_SLOW_SECONDS:
            self._stop_reading(context, too_slow(TOO_SLOW_SECONDS))
        elif read.reserved and seconds > SLOW_SECONDS:
            self._bytes.release(read.reserved)
            read.reserved = 0

    def _give_up_one(self, before: float, share: int) -> None:
        """Give up a slow call of a connection with many of them: others need its thread."""
        slow = {
            context: read
            for context, read in self._reading.items()
            if not read.is_small and read.since < before
        }
        counts = Counter(read.peer for read in slow.values()).most_common(1)
        if counts and counts[0][1] > share:
            last = next(c for c in reversed(slow) if slow[c].peer == counts[0][0])
            self._stop_reading(last, no_memory() if slow[last].waits else too_slow(SLOW_SECONDS))

    def _stop_reading(self, context: grpc.ServicerContext, error: ServingError) -> None:
        self._given_up[context] = error
        self._bytes.release(self._reading.pop(context).reserved)
        code, details, _ = refusal_of(error)
        end_call(context, code, details)


def _wait_seconds() -> float:
    """Return how long this thread's call may still wait for memory, counted from its arrival."""
    call = current_call()
    return max(0.0, call.started + MAX_WAIT_SECONDS - time.monotonic()) if call else 0.0
