"""Calls of the standard transport that come while a pool is full, admitted by their models."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from mlpserve_server.dataplane.fair_shares import FairShares, NamePath
from mlpserve_server.transport.call_pool import CallPool
from mlpserve_server.transport.handlers import too_many

__all__ = ["FairPool"]


class FairPool:
    """Counts the calls of a pool by their models, and judges those beyond its limit.

    Only calls whose requests are here can be counted. Those that wait for a thread unread are taken
    for calls of the same models in the same parts.
    """

    def __init__(self, shares: FairShares, pool: CallPool) -> None:
        self._shares = shares
        self._pool = pool
        self._read: Counter[str] = Counter()
        self._lock = threading.Lock()

    def counted(self, path: NamePath, request: bytes) -> AbstractContextManager[str]:
        """Return a context in which a call of the pool is counted; it gives the model."""
        return self._holding(path, request, judges=False)

    def judged(self, path: NamePath, request: bytes) -> AbstractContextManager[str]:
        """Return the same for a call beyond the limit; raises Overloaded."""
        return self._holding(path, request, judges=True)

    @contextmanager
    def _holding(self, path: NamePath, request: bytes, judges: bool) -> Iterator[str]:
        model = self._shares.model_of(path, request)
        with self._lock:
            if judges and not self._shares.admits(model, self._waiting()):
                raise too_many()
            self._read[model] += 1
        try:
            yield model
        finally:
            with self._lock:
                self._read[model] -= 1
                if not self._read[model]:
                    del self._read[model]

    def _waiting(self) -> dict[str, int]:
        read = self._read.total()
        held = max(self._pool.open_calls, read)
        return {model: count * held // read for model, count in self._read.items()}
