"""The training rows that an instance is nearest to, for a reviewer of claims about it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.split import Examples

__all__ = ["Neighbour", "nearest"]

# Of the training rows at a time, scaled: 12 MB of MNIST's.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Neighbour:
    """A training row.

    Attributes:
        label: The name of its class.
        distance: Its Euclidean distance from the instance, both as the network takes them.
        row: Its number among the training rows, from 0.
    """

    label: str
    distance: float
    row: int


def nearest(
    instance: npt.NDArray[np.float32],
    training: Examples,
    class_names: tuple[str, ...],
    count: int,
) -> list[Neighbour]:
    """Return the training rows nearest to an instance, the nearest first.

    Args:
        instance: As the network takes it, of the shape of the training rows or flat.
        training: The training rows, at least one.
        class_names: The names of their labels.
        count: How many are returned, if there are as many.

    """
    squares = np.concatenate(list(_squares(instance.ravel(), training)))
    count = min(count, len(squares))
    rows = np.argpartition(squares, count - 1)[:count]
    return [
        Neighbour(class_names[training.labels[row]], float(np.sqrt(squares[row])), int(row))
        for row in sorted(rows, key=lambda row: (squares[row], row))
    ]


def _squares(
    instance: npt.NDArray[np.float32], training: Examples
) -> Iterator[npt.NDArray[np.float64]]:
    for start in range(0, len(training), ROWS_AT_ONCE):
        difference = training.scaled(slice(start, start + ROWS_AT_ONCE)) - instance
        yield np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
