"""One shard's slice of the training state while an epoch runs."""

import math

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.fitting.optimizers import OPTIMIZERS
from mlpserve_trainer.fitting.parallel.lockstep import shared
from mlpserve_trainer.fitting.parallel.shard import Shard
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["ShardState"]

Floats = npt.NDArray[np.float32]

# Parameters that an optimizer updates at a time: 256 KiB of each vector, which stay in the cache
# over its passes.
BLOCK = 2**16


class ShardState:
    """A shard's weights, optimizer state and running average, in shared memory."""

    def __init__(self, state: TrainingState, shard: Shard) -> None:
        self._state, self._shard = state, shard
        shard.weights[:] = state.weights[shard.positions]
        self._optimizer_state = shared(len(state.optimizer_state), len(shard.positions))
        np.take(state.optimizer_state, shard.positions, axis=1, out=self._optimizer_state)
        self._average = shard.weights
        if state.average is not None:
            self._average = shared(len(shard.positions))
            self._average[:] = state.average[shard.positions]
        count = math.ceil(len(shard.weights) / BLOCK)
        edges = np.linspace(0, len(shard.weights), count + 1).astype(int).tolist()
        self._blocks = [
            (
                shard.weights[block],
                shard.gradient[block],
                list(self._optimizer_state[:, block]),
                block,
            )
            for block in map(slice, edges[:-1], edges[1:])
        ]

    def update(self, step: int, rate: float, recipe: Recipe) -> None:
        """Let the optimizer change the weights by the gradient, which is overwritten."""
        update = OPTIMIZERS[recipe.optimizer].update
        for w, g, optimizer_state, block in self._blocks:
            update(w, g, optimizer_state, step, rate, recipe)
            if self._state.average is not None:
                _move_average(self._average[block], w, recipe.averaging, g)

    def write_back(self) -> None:
        """Copy the slice into the training state."""
        state, positions = self._state, self._shard.positions
        state.weights[positions] = self._shard.weights
        state.optimizer_state[:, positions] = self._optimizer_state
        if state.average is not None:
            state.average[positions] = self._average


def _move_average(average: Floats, weights: Floats, decay: float, scratch: Floats) -> None:
    """Compute average <- decay · average + (1 - decay) · weights: Polyak's, exponential."""
    np.subtract(weights, average, out=scratch)
    np.multiply(scratch, 1 - decay, out=scratch)
    np.add(average, scratch, out=average)
