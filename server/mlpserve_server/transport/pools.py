"""Thread pools whose threads wait for callers, and give up the slowest while others need one."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["MAX_CALLS", "PatientPool"]

# While calls wait for a thread, how long a caller may keep one waiting. With 0.05 s an overloaded
# server gave up requests that had come, and were not handed over yet.
PATIENCE_SECONDS = 1.0
# Most wait for a request, which takes no time but memory of some ten KiB.
_THREADS = 64
# Calls of a pool that run or wait for a thread.
MAX_CALLS = 1024


class _Call(Protocol):
    """A grpc.ServicerContext, as far as it is needed here."""

    def cancel(self) -> object: ...


class PatientPool(futures.ThreadPoolExecutor):
    """A thread pool that knows which callers keep a thread waiting.

    A caller that never sends its request, or never reads, keeps a thread as long as it likes:
    grpcio's own calls block. So while calls wait for a thread, those callers that have kept one
    for longer than PATIENCE_SECONDS lose their calls.
    """

    def __init__(self, name: str) -> None:
        super().__init__(_THREADS, name)
        self.open_calls = 0  # running, or waiting for a thread
        self._waits: dict[object, tuple[_Call, float]] = {}  # whom a thread waits for, since when
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether another call would be one too many."""
        return self.open_calls >= MAX_CALLS

    @property
    def crowded(self) -> bool:
        """Whether calls wait for a thread, or are refused."""
        return self.open_calls > _THREADS or self.full

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run a call on one of the threads."""
        with self._lock:
            self.open_calls += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._done)
        return future

    @contextmanager
    def waits_for(self, call: _Call) -> Iterator[None]:
        """Return a context in which a thread waits for this caller."""
        place = object()
        self._waits[place] = call, time.monotonic()
        try:
            yield
        finally:
            del self._waits[place]

    def give_up_slow(self) -> None:
        """Cancel the calls of those who keep threads from others."""
        if self.crowded:
            before = time.monotonic() - PATIENCE_SECONDS
            for call, since in list(self._waits.values()):
                if since < before:
                    call.cancel()

    def _done(self, _: futures.Future[Any]) -> None:
        with self._lock:
            self.open_calls -= 1
