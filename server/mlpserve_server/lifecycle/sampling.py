"""A sample of the live rows, at a rate."""

import threading
import time

__all__ = ["POLL_SECONDS", "RowRate"]

# The threads that work samples off poll at this interval: a wake-up would make a live call hand
# them the processor. It is long, since a product of 50 rows costs about as much as one of 1 row.
POLL_SECONDS = 0.5


class RowRate:
    """Says how many of the rows that are offered to sample; for any thread.

    Args:
        rows_per_second: the rate; what is not used for a second is lost.
        at_once: the most rows of one offer.

    """

    def __init__(self, rows_per_second: float, at_once: int) -> None:
        self._rate = rows_per_second
        self._at_once = at_once
        self._since = time.monotonic()  # rows may be sampled for the time since then
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Return True if it is time for a row; most calls end with this."""
        return (time.monotonic() - self._since) * self._rate >= 1

    def take(self, offered: int) -> int:
        """Return how many of these rows to sample, so that the rate holds in every second."""
        with self._lock:
            now = time.monotonic()
            self._since = max(self._since, now - 1)
            rows = min(int((now - self._since) * self._rate), offered, self._at_once)
            self._since += rows / self._rate
            return rows
