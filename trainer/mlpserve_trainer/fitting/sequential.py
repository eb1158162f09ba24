"""The sequential engine: training steps as a textbook writes them, the parallel engine's oracle."""

from collections.abc import Generator, Sequence
from typing import TypeAlias

import numpy as np

from mlpserve_model.nn.network import Layer, Network, Weights, loss_and_gradients
from mlpserve_model.nn.types import Array
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.batch_loader import batch_loader
from mlpserve_trainer.fitting.engine import Batch, smoothed_targets
from mlpserve_trainer.fitting.optimizers import OPTIMIZERS
from mlpserve_trainer.fitting.parallel.engine import row_slice, shard_count
from mlpserve_trainer.fitting.parallel.shard import shard_slice
from mlpserve_trainer.fitting.state import TrainingState, layers_of, vector_of
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["SequentialEngine"]

Losses: TypeAlias = Generator[float, None, None]
# Of each layer, factors (inputs, 1) of its inputs, or 1 for all.
Masks: TypeAlias = Sequence[Array | float]


class SequentialEngine:
    """Takes one step at a time by `loss_and_gradients`.

    It draws augmentation and dropout as the shards do, so only the rounding of sums differs.
    """

    def __init__(
        self, network: Network, recipe: Recipe, examples: Examples, state: TrainingState
    ) -> None:
        self._network, self._recipe, self._state = network, recipe, state
        self._targets = smoothed_targets(network.classes, recipe.label_smoothing)
        self._load = batch_loader(recipe, examples, recipe.batch_size)
        self._shards = shard_count(network, recipe, examples.rows_in_epoch)

    def run(self, batches: Sequence[Batch], seeds: np.random.SeedSequence) -> Losses:
        """Take one step for each batch, and yield its loss; see Engine."""
        self._streams = [*enumerate(map(np.random.default_rng, seeds.spawn(self._shards)))]
        yield from map(self.step, batches)

    def step(self, batch: Batch) -> float:
        """Change the weights by one batch; return the loss summed over its rows."""
        recipe, state, rows = self._recipe, self._state, len(batch.rows)
        x = np.empty((rows, self._network.inputs), np.float32)
        for member, rng in self._streams:
            own = row_slice(rows, member, self._shards)
            self._load(x[own], batch.rows[own], rng)
        loss, gradient = self._loss_and_gradient(x, self._targets[batch.labels])
        if recipe.clip_norm:
            gradient *= min(1.0, recipe.clip_norm / float(np.linalg.norm(gradient)))
        update, state_vectors = OPTIMIZERS[recipe.optimizer].update, state.optimizer_state
        update(state.weights, gradient, state_vectors, batch.step, batch.learning_rate, recipe)
        if state.average is not None:
            state.average += (1 - recipe.averaging) * (state.weights - state.average)
        return loss * rows

    def _loss_and_gradient(self, x: Array, targets: Array) -> tuple[float, Array]:
        """Return the mean loss and its gradient; with dropout each row has a network of its own."""
        if not self._recipe.dropout:
            return self._thinned(x, targets, [1.0] * len(self._network.layer_shapes))
        hidden = self._network.layer_sizes[1:-1]
        masks = [np.ones_like(x), *(self._mask(len(x), units) for units in hidden)]
        rows = [
            self._thinned(row[np.newaxis], target[np.newaxis], [m[:, np.newaxis] for m in kept])
            for row, target, *kept in zip(x, targets, *masks, strict=True)
        ]
        losses, gradients = zip(*rows, strict=True)
        return float(np.mean(losses)), np.mean(gradients, axis=0)

    def _mask(self, rows: int, units: int) -> Array:
        keep, mask = 1 - self._recipe.dropout, np.empty((rows, units), np.float32)
        for member, rng in self._streams:
            own = mask[:, shard_slice(units, member, self._shards)]
            own[...] = (rng.random(own.shape, np.float32) < keep) / keep
        return mask

    def _thinned(self, x: Array, targets: Array, masks: Masks) -> tuple[float, Array]:
        """Return loss and gradient with the inputs of each layer multiplied by its mask."""
        thinned = _masked(layers_of(self._network, self._state.weights), masks)
        loss, gradients = loss_and_gradients(self._network, thinned, x, targets, self._recipe.loss)
        return loss, vector_of(_masked(gradients, masks))


def _masked(layers: Weights, masks: Masks) -> Weights:
    return tuple(Layer(w * mask, b) for (w, b), mask in zip(layers, masks, strict=True))
