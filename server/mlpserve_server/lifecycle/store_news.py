"""What the supervisor has found in the store, so that a worker need not poll it too."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

from mlpserve_model.store.stamps import StampListing

__all__ = ["MAX_BYTES", "StoreNews"]

# The longest message.
MAX_BYTES = 1 << 18
# The polls after which a worker that received nothing polls the store itself.
_PATIENCE = 3
# The longest interval between two updates, in seconds, that is waited for again.
_MAX_INTERVAL = 5.0


class StoreNews:
    """Receives the updates of a StoreWatch; `of` and `names` are as those of StampListing.

    While none arrive, whatever the reason, nothing is known of a volume, whose models are polled
    one by one, and an object store is listed.

    Args:
        line: The descriptor of the line.
        poll_seconds: The seconds between two updates.
        list_names: Lists the models in the store.
        listing: Lists an object store meanwhile.

    """

    def __init__(
        self,
        line: int,
        poll_seconds: float,
        list_names: Callable[[], Sequence[str]],
        listing: StampListing | None = None,
    ) -> None:
        self._line = socket.socket(fileno=line)
        self._poll_seconds = poll_seconds
        self._list_names = list_names
        self._listing = listing
        self._wait = 0.0  # the first poll waits for nothing
        self._received_at = time.monotonic()
        self._is_known = False
        # How often each model has changed, and how often all may have.
        self._changes: Counter[str] = Counter()
        self._resets = 0
        self._unknown: Collection[str] | None = None  # None: all
        self._names: Sequence[str] | None = None

    def refresh(self) -> None:
        """Wait for the next update of the supervisor, but not for longer than it should take."""
        self._is_known = self._receive(self._wait)
        self._wait = self._poll_seconds
        if self._is_known:
            now = time.monotonic()
            interval, self._received_at = now - self._received_at, now
            self._wait = _PATIENCE * max(self._wait, min(interval, _MAX_INTERVAL))
        elif self._listing:
            self._listing.refresh()

    def of(self, model: str) -> Hashable:
        """Return what changes when the aliases or a manifest of a model do; None if not known."""
        if not self._is_known:
            return self._listing.of(model) if self._listing else None
        if self._unknown is None or model in self._unknown:
            return None
        return self._resets, self._changes[model]

    def names(self) -> Sequence[str]:
        """Return the names of the models; raises StoreError."""
        if self._is_known and self._names is not None:
            return self._names
        return self._list_names()

    def _receive(self, seconds: float) -> bool:
        """Take what has arrived, or arrives within this time; return False if that is nothing."""
        found = False
        try:
            while True:
                self._line.settimeout(0 if found else seconds)
                self._take(self._line.recv(MAX_BYTES))
                found = True
        except (BlockingIOError, TimeoutError):
            return found
        except OSError:  # the supervisor has ended
            time.sleep(seconds)
            return False

    def _take(self, message: bytes) -> None:
        update = json.loads(message)
        if update["changed"] is None:
            self._resets += 1
            self._changes.clear()
        else:
            self._changes.update(update["changed"])
        self._unknown = None if update["unknown"] is None else frozenset(update["unknown"])
        self._names = update.get("names", self._names)
