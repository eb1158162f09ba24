"""What one member of a team holds of a training's state while epochs run."""

import math

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.fitting.optimizers import OPTIMIZERS
from mlpserve_trainer.fitting.parallel.lockstep import shared
from mlpserve_trainer.fitting.parallel.shard import Part
from mlpserve_trainer.fitting.state import State
from mlpserve_trainer.recipe import Recipe

__all__ = ["Owned"]

# Parameters that an optimizer goes through at a time: its passes over them stay in the cache.
BLOCK = 2**16


class Owned:
    """A part's weights, their memory and their average, in memory that processes share."""

    def __init__(self, state: State, part: Part) -> None:
        self._state, self._part = state, part
        part.weights[:] = state.weights[part.positions]
        self._memory = shared(len(state.memory), len(part.positions))
        np.take(state.memory, part.positions, axis=1, out=self._memory)
        self._average = part.weights
        if state.average is not None:
            self._average = shared(len(part.positions))
            self._average[:] = state.average[part.positions]
        count = math.ceil(len(part.weights) / BLOCK)
        edges = np.linspace(0, len(part.weights), count + 1).astype(int).tolist()
        self._blocks = [
            (part.weights[block], part.gradient[block], list(self._memory[:, block]), block)
            for block in map(slice, edges[:-1], edges[1:])
        ]

    def update(self, step: int, rate: float, recipe: Recipe) -> None:
        """Let the optimizer change the weights by the gradient, which is used up."""
        update = OPTIMIZERS[recipe.optimizer].update
        for w, g, memory, block in self._blocks:
            update(w, g, memory, step, rate, recipe)
            if self._state.average is not None:
                _move_average(self._average[block], w, recipe.averaging, g)

    def give_back(self) -> None:
        """Write into the state what the epoch has come to."""
        state, positions = self._state, self._part.positions
        state.weights[positions] = self._part.weights
        state.memory[:, positions] = self._memory
        if state.average is not None:
            state.average[positions] = self._average


def _move_average(
    average: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    kept: float,
    scratch: npt.NDArray[np.float32],
) -> None:
    """Average <- kept · average + (1 - kept) · weights: Polyak's averaging, exponential."""
    np.subtract(weights, average, out=scratch)
    np.multiply(scratch, 1 - kept, out=scratch)
    np.add(average, scratch, out=average)
