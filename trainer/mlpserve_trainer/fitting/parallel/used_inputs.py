"""Leave out the inputs that a batch does not use.

An input that is 0 adds nothing to a matrix product, and the gradient of its weights is 0. Inputs
that no row uses are therefore left out of the computation (one in twelve of MNIST's), and rare
inputs come first, so that a batch can skip those before the first one that it uses.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import Network
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.batch_loader import augments
from mlpserve_trainer.fitting.engine import Batch
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["UsedInputs", "first_used_inputs", "rarest_first", "used_inputs"]

# One row in 16 suffices to tell rare inputs from others.
SAMPLED = 16


class UsedInputs(NamedTuple):
    """The inputs that a network is trained on.

    Attributes:
        order: Which inputs (used,) are computed with, in which order; None for all, unchanged.
        examples: The training examples with these inputs, flat if there is an order.
        first: First input (rows,) that each example uses.
    """

    order: npt.NDArray[np.intp] | None
    examples: Examples
    first: npt.NDArray[np.intp]

    def reduced(self, network: Network) -> Network:
        """Return the network with the used inputs alone."""
        if self.order is None:
            return network
        return replace(network, layer_sizes=(len(self.order), *network.layer_sizes[1:]))

    def first_of(self, batches: Sequence[Batch]) -> list[int]:
        """Return for each batch the first input that any of its rows uses."""
        sizes = [len(batch.rows) for batch in batches]
        first = self.first[np.concatenate([batch.rows for batch in batches])]
        starts = np.cumsum([0, *sizes[:-1]])
        found: list[int] = np.minimum.reduceat(first, starts).tolist()
        return found


def used_inputs(recipe: Recipe, examples: Examples, layers: int) -> UsedInputs:
    """Return the inputs to compute with, for a network of `layers` layers.

    Augmented images may use any input. With weight decay no input is left out, since the weights
    of an unused one decay too. A network of one layer is cut by its inputs and skips none.
    """
    order, none = None, np.zeros(len(examples), np.intp)
    rows = examples.inputs.reshape(len(examples), -1)
    if not augments(recipe, examples):
        order = rarest_first(rows, recipe.batch_size, with_unused=recipe.weight_decay > 0)
    if order is None:
        return UsedInputs(None, examples, none)
    # take() keeps the rows contiguous in memory, an index would not.
    kept = Examples(rows.take(order, axis=1), examples.labels, examples.input_maximum)
    return UsedInputs(order, kept, first_used_inputs(kept.inputs) if layers > 1 else none)


def rarest_first(
    rows: npt.NDArray[np.generic], batch_size: int, with_unused: bool
) -> npt.NDArray[np.intp] | None:
    """Return the inputs ordered by the number of rows (n, inputs) in which they are not 0.

    Args:
        rows: The training inputs (n, inputs).
        batch_size: Rows in one step.
        with_unused: Whether inputs that are 0 in every row are kept, in front.

    Returns:
        Indices of inputs, or None if every batch probably uses every input.
    """
    sample, used = rows[::SAMPLED], np.asarray(rows.any(axis=0))
    uses = np.count_nonzero(sample, axis=0)
    if uses.min() * batch_size >= len(sample):
        return None
    order = np.argsort(uses, kind="stable")
    return order if with_unused or not used.any() else order[used[order]]


def first_used_inputs(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Return the index (n,) of the first input of each row (n, inputs) that is not 0.

    The index is 0 for a row of zeros.
    """
    first: npt.NDArray[np.intp] = np.argmax(rows != 0, axis=1)
    return first
