"""Scaling of real inputs: fitted on training rows, and folded into a network's first layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve_model import Layer, Weights
from mlpserve_model.process.tables import plain
from mlpserve_trainer.errors import DataError

__all__ = ["Scaling", "column_name", "listed_means", "standardising", "weighted_standardising"]

Doubles = npt.NDArray[np.float64]

# Of mean to deviation. Inputs travel as float32, of seven digits: beyond this, fewer than three of
# them are left for what varies.
MAX_RATIO = 1e4
# Below it, 1 / deviation is no weight in float32.
MIN_DEVIATION = 1e-30
MAX_MEANS = 4096  # in a manifest, which holds at most 1 MiB


class Scaling(NamedTuple):
    """The map x · factor + offset of each column.

    Attributes:
        factor: (columns,).
        offset: (columns,).

    """

    factor: Doubles
    offset: Doubles

    def apply(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return rows (n, columns), scaled."""
        return (rows * self.factor + self.offset).astype(np.float32)

    def fold(self, weights: Weights, dtype: type[np.float32 | np.float64] = np.float32) -> Weights:
        """Return weights that answer to rows as the given ones answer to scaled rows."""
        wide = tuple(Layer(w.astype(np.float64), b.astype(np.float64)) for w, b in weights)
        (w, b), *rest = wide
        layers = (Layer(self.factor[:, np.newaxis] * w, b + self.offset @ w), *rest)
        return tuple(Layer(w.astype(dtype), b.astype(dtype)) for w, b in layers)


def standardising(name: str, rows: npt.NDArray[Any], columns: Sequence[str]) -> Scaling:
    """Return the scaling after which each column has mean 0 and standard deviation 1.

    Args:
        name: The source of the rows, for the error.
        rows: Training rows (n, columns).
        columns: The columns' names; none if they have none.

    Raises:
        DataError: A column is constant, or varies too little to be told in float32.

    """
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    for index in np.flatnonzero(~(deviation > np.abs(mean) / MAX_RATIO + MIN_DEVIATION)):
        column, low, high = rows[:, index], rows[:, index].min(), rows[:, index].max()
        shown = column_name(columns, int(index))
        if low == high:
            raise DataError(
                f"{name}: {shown} is {column[0]:g} in every training row, from which nothing can "
                "be learnt: leave it out"
            )
        raise DataError(
            f"{name}: {shown} reaches from {low:.9g} to {high:.9g}, too little beside its size "
            "for float32, in which inputs are sent: subtract a constant from it"
        )
    return Scaling(1 / deviation, -mean / deviation)


def weighted_standardising(rows: Doubles, weights: Doubles) -> Scaling:
    """Return the scaling by weighted means and deviations; a constant column becomes 0.

    Args:
        rows: Training rows (n, columns).
        weights: Their weights (n,).

    Raises:
        DataError: A column has values whose squares a float cannot hold.

    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(rows, axis=0, weights=weights)
        deviation = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weights))
    for index in np.flatnonzero(~np.isfinite(deviation)):
        largest = np.abs(rows[:, index]).max()
        raise DataError(
            f"{column_name((), int(index))} has values of up to {largest:.3g}: too large"
        )
    varies = (rows.max(axis=0) > rows.min(axis=0)) & (deviation > MIN_DEVIATION)
    factor = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    return Scaling(factor, -mean * factor)


def listed_means(means: Doubles) -> tuple[float, ...]:
    """Return the means of columns as a manifest lists them: none of very many."""
    return tuple(means.tolist()) if len(means) <= MAX_MEANS else ()


def column_name(columns: Sequence[str], index: int) -> str:
    """Return how messages name a column: as its file does, or as NumPy counts it."""
    return f"column {plain(columns[index])[:200]!r}" if columns else f"column X[:, {index}]"
