"""Feeding: rows of the data set on their way into a step, as the network takes them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.augmentation import augmentation_for
from mlpserve_trainer.recipe import Recipe

__all__ = ["Feed", "feed_for", "first_used", "rarest_first"]

Floats = npt.NDArray[np.float32]

# One row in so many is enough to tell rare inputs from others.
COUNTED = 16

# Fills (n, inputs) with these n rows; the generator is that of the augmentation.
Feed = Callable[[Floats, npt.NDArray[np.intp], np.random.Generator], object]


def feed_for(recipe: Recipe, examples: Examples, most_rows: int) -> Feed:
    """Return the feed of one part of each batch, of at most `most_rows` rows.

    Pictures are bent where the recipe augments; other inputs never are.
    """
    flat = examples.inputs.reshape(len(examples), -1)
    if recipe.augments and examples.are_pictures:
        return augmentation_for(recipe, examples, most_rows)
    if flat.dtype != np.uint8:
        return lambda out, rows, rng: np.take(flat, rows, axis=0, out=out, mode="clip")
    raw = np.empty((most_rows, flat.shape[1]), np.uint8)
    factor = np.float32(1 / examples.input_maximum)

    def gather(out: Floats, rows: npt.NDArray[np.intp], rng: np.random.Generator) -> None:
        # The mode spares a copy: the rows are known to exist.
        np.take(flat, rows, axis=0, out=raw[: len(rows)], mode="clip")
        np.multiply(raw[: len(rows)], factor, out=out)

    return gather


def rarest_first(
    rows: npt.NDArray[np.generic], batch_size: int, with_unused: bool
) -> npt.NDArray[np.intp] | None:
    """Return the inputs by how many of the rows (n, inputs) use them, which is to be not zero.

    Those that no row uses come first too, or not at all: they are one in twelve of MNIST's. None
    where every batch may be expected to use every input.
    """
    sample, used = rows[::COUNTED], np.asarray(rows.any(axis=0))
    uses = np.count_nonzero(sample, axis=0)
    if uses.min() * batch_size >= len(sample):
        return None
    order = np.argsort(uses, kind="stable")
    return order if with_unused or not used.any() else order[used[order]]


def first_used(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Return the first input (n,) that each of the rows (n, inputs) uses; for none, the first."""
    first: npt.NDArray[np.intp] = np.argmax(rows != 0, axis=1)
    return first
