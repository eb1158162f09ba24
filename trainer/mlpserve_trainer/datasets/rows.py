"""Rows with weights: equal ones counted once, and drawn as often as their weights say."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["distinct_rows", "drawn_rows", "rows_in_epoch"]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# An epoch has at most so many draws of each distinct row.
MAX_REPEATS = 10


def distinct_rows(
    x: Doubles, labels: Integers, weights: Doubles
) -> tuple[Doubles, Integers, Doubles]:
    """Return the rows of positive weight, sorted by their bytes, equal ones once.

    So rows that are repeated, reordered or left out are the same training data as rows with
    weights.

    Args:
        x: Rows (n, columns).
        labels: Their labels (n,).
        weights: Their weights (n,); those of equal rows with equal labels are added.

    """
    kept = weights > 0
    x, labels, weights = x[kept] + 0.0, labels[kept], weights[kept]  # -0.0 becomes 0.0
    table = np.ascontiguousarray(np.column_stack([labels.astype(np.float64), x]))
    # As one value of bytes a row: compared at once, and much faster than column by column.
    packed: Any = table.view(np.dtype((np.void, table.shape[1] * table.itemsize))).ravel()
    order = np.argsort(packed, kind="stable")
    table = table[order]
    new = np.concatenate([[True], (table[1:] != table[:-1]).any(axis=1)])
    # Sorted first: sums of floats depend on their order.
    groups = np.cumsum(new) - 1
    by_weight = np.lexsort((weights[order], groups))
    total: Doubles = np.bincount(groups, weights[order][by_weight]).astype(np.float64)
    return x[order][new], labels[order][new], total


def rows_in_epoch(weights: Doubles) -> int:
    """Return the number of draws of an epoch: the sum of the weights, within limits."""
    return int(np.clip(round(weights.sum()), len(weights), MAX_REPEATS * len(weights)))


def drawn_rows(weights: Doubles, count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Draw `count` rows, each as often as its share of the weights says, rounded at random.

    Systematic sampling: equidistant positions on the cumulated weights. Integer weights that sum
    to `count` give each row exactly that often.
    """
    edges = np.cumsum(weights)
    positions = (np.arange(count) + rng.random()) * (edges[-1] / count)
    rows = np.searchsorted(edges, positions, side="right")
    drawn: npt.NDArray[np.intp] = rows.clip(max=len(weights) - 1)
    return drawn
