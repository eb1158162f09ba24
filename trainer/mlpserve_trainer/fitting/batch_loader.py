"""Batch loading: rows of the data set, converted to what the network takes."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.augmentation import augmentation_for
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["BatchLoader", "augments", "batch_loader", "batches"]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

# Fills (n, inputs) with the given n rows, drawing augmentation from the generator.
BatchLoader: TypeAlias = Callable[[Floats, Rows, np.random.Generator], object]


def batches(order: Rows, size: int) -> Iterator[Rows]:
    """Cut the rows into batches of `size`; the last one may be smaller."""
    for start in range(0, len(order), size):
        yield order[start : start + size]


def augments(recipe: Recipe, examples: Examples) -> bool:
    """Return True if these examples are augmented: only images are, and only on request."""
    return recipe.augments and examples.is_image


def batch_loader(recipe: Recipe, examples: Examples, max_rows: int) -> BatchLoader:
    """Return the loader for the examples, which are augmented if the recipe asks for it.

    Args:
        recipe: Says how images are augmented; other inputs never are.
        examples: The rows to load from.
        max_rows: Largest number of rows in one call.
    """
    if augments(recipe, examples):
        return augmentation_for(recipe, examples, max_rows)
    flat = examples.inputs.reshape(len(examples), -1)
    if flat.dtype != np.uint8:
        return lambda out, rows, rng: np.take(flat, rows, axis=0, out=out, mode="clip")
    raw = np.empty((max_rows, flat.shape[1]), np.uint8)
    factor = np.float32(1 / examples.input_maximum)

    def load(out: Floats, rows: Rows, rng: np.random.Generator) -> None:
        # mode="clip" saves a copy; all rows exist, so nothing is clipped.
        np.take(flat, rows, axis=0, out=raw[: len(rows)], mode="clip")
        np.multiply(raw[: len(rows)], factor, out=out)

    return load
