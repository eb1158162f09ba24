"""Many lives of a pair of versions, and of a live accuracy, each looked at after every label."""

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.store.evidence.statistics import (
    confidence_sequence,
    log_e_value,
    wilson_interval,
)

__all__ = ["coverage", "pairs"]

ALPHA = 0.05
LABELS = 20_000
# Accuracies of champion and challenger, whose mistakes are independent.
PAIRS = ((0.97, 0.97), (0.98, 0.97), (0.97, 0.983), (0.983, 0.9915), (0.983, 0.995), (0.9, 0.97))
ACCURACY, ROWS = 0.98, 5000
BLOCK = 200  # lives at once


def pairs(lives: int) -> list[dict[str, Any]]:
    """Return what becomes of each pair, and the labels until a decision."""
    return [_pair(lives, *accuracies) for accuracies in PAIRS]


def coverage(lives: int) -> dict[str, float]:
    """Return the share of lives in which each interval ever misses the true accuracy."""
    right = (np.random.default_rng(2).random((lives, ROWS)) < ACCURACY).cumsum(axis=1)
    found = {}
    for name, interval in (("sequence", confidence_sequence), ("wilson", wilson_interval)):
        bounds, low, high = [], 0, 0  # of the counts after n rows whose interval covers it
        for n in range(1, ROWS + 1):
            while low < n and interval(low, n)[1] < ACCURACY:
                low += 1
            high = max(high, low)
            while high < n and interval(high + 1, n)[0] <= ACCURACY:
                high += 1
            bounds.append((low, high))
        lows, highs = np.array(bounds).T
        found[name] = float(((right < lows) | (right > highs)).any(axis=1).mean())
    return found


def _pair(lives: int, champion: float, challenger: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    promoted, retired, labels = 0, 0, []
    for _ in range(0, lives, BLOCK):
        ours, theirs = (rng.random((BLOCK, LABELS)) < p for p in (challenger, champion))
        won, lost = ours & ~theirs, theirs & ~ours
        better, worse = _first(won, lost), _first(lost, won)
        promoted += int((better < worse).sum())
        retired += int((worse < better).sum())
        first = np.minimum(better, worse)
        labels += first[first < LABELS].tolist()
    decided = promoted + retired
    return {
        "champion": champion,
        "challenger": challenger,
        "promoted": promoted / lives,
        "retired": retired / lives,
        "labels": int(np.median(labels)) + 1 if decided > lives / 2 else None,
    }


def _first(won: npt.NDArray[np.bool_], lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the label after which the e-value has reached 1 / alpha; LABELS if it never does."""
    a = won.cumsum(axis=1)
    reached = a >= boundary()[a + lost.cumsum(axis=1)]
    return np.where(reached.any(axis=1), reached.argmax(axis=1), LABELS)


@cache
def boundary(pairs: int = 4000) -> npt.NDArray[np.int64]:
    """Return the wins out of each number of discordant pairs that are enough."""
    bounds, wins = [1], 0
    for n in range(1, pairs + 1):
        while wins <= n and log_e_value(wins, n - wins) < -math.log(ALPHA):
            wins += 1
        bounds.append(wins)
    return np.array(bounds)
