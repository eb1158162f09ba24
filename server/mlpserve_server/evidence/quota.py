"""How many reports one source may make: a bound on what a place fills with, and how fast."""

import threading
import time
from collections.abc import Callable

__all__ = ["Quota"]


class Quota:
    """A rate for each source; for any thread.

    A source that was quiet may make a minute's worth at once. The last request of that minute is
    admitted whole, however large, and paid for by a longer wait.

    Args:
        rate: reports a minute.
        clock: seconds, as time.monotonic gives them.

    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # reports, and the time they are of
        self._lock = threading.Lock()

    def take(self, source: str, count: int) -> float:
        """Take so many reports; return 0, or the seconds to wait if none may be taken now."""
        with self._lock:
            now = self._clock()
            left, then = self._left.get(source, (self._rate, now))
            left = min(left + (now - then) * self._rate / 60, self._rate)
            if left < min(1, self._rate):
                return (min(1, self._rate) - left) * 60 / self._rate
            self._left[source] = left - count, now
            return 0.0
