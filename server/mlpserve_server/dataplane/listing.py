"""One listing of the store for all pages of a list of versions."""

import bisect
import itertools
import math
import operator
import time
from collections.abc import Iterator
from typing import NamedTuple

from mlpserve_model.store.reader import StoreReader

__all__ = ["Listing"]

# How long a listing serves the pages after a first one. Numbers only grow, so what it may lack is
# a version whose number was taken before it, and which was complete only after it.
_SECONDS = 10.0


class _Listed(NamedTuple):
    model: str
    until: float
    below: float
    numbers: list[int]  # the highest first


class Listing:
    """Gives the numbers of the versions of a store; remembers those of the last listing."""

    def __init__(self) -> None:
        self._last = _Listed("", 0.0, 0.0, [])

    def below(self, store: StoreReader, number: float) -> Iterator[int]:
        """Give the numbers below one, the highest first; lazily for the first page.

        Raises:
            StoreError: The store cannot be read.

        """
        if number == math.inf:
            return (version for version, _ in store.newest())
        last = self._last
        if last.model != store.model or time.monotonic() > last.until or number > last.below:
            numbers = [version for version, _ in store.newest(number)]
            last = _Listed(store.model, time.monotonic() + _SECONDS, number, numbers)
            self._last = last
        first = bisect.bisect_right(last.numbers, -number, key=operator.neg)
        return itertools.islice(last.numbers, first, None)
