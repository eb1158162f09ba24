"""Feeding: rows of the data set on their way into a step, as the network takes them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.augmentation import Warp
from mlpserve_trainer.recipe import Recipe
from mlpserve_trainer.split import Examples

__all__ = ["Feed", "feed_for"]

Floats = npt.NDArray[np.float32]

# Fills (n, inputs) with these n rows; the generator is that of the augmentation.
Feed = Callable[[Floats, npt.NDArray[np.intp], np.random.Generator], object]


def feed_for(recipe: Recipe, examples: Examples, most_rows: int) -> Feed:
    """Return the feed of one part of each batch, of at most `most_rows` rows.

    Pictures are warped where the recipe augments; other inputs never are.
    """
    flat = examples.inputs.reshape(len(examples), -1)
    if recipe.augments and examples.are_pictures:
        return Warp(recipe, examples, most_rows)
    if flat.dtype != np.uint8:
        return lambda out, rows, rng: np.take(flat, rows, axis=0, out=out, mode="clip")
    raw = np.empty((most_rows, flat.shape[1]), np.uint8)
    factor = np.float32(1 / examples.input_maximum)

    def gather(out: Floats, rows: npt.NDArray[np.intp], rng: np.random.Generator) -> None:
        # The mode spares a copy: the rows are known to exist.
        np.take(flat, rows, axis=0, out=raw[: len(rows)], mode="clip")
        np.multiply(raw[: len(rows)], factor, out=out)

    return gather
