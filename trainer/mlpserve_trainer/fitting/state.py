"""What one epoch leaves to the next: everything a checkpoint has to hold."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import Network, initialise
from mlpserve_trainer.fitting.optimizers import OPTIMIZERS
from mlpserve_trainer.recipe import Recipe

__all__ = ["State"]

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class State:
    """A training between two epochs.

    * `weights`: (parameters,) as the optimizer goes on with them.
    * `memory`: (slots, parameters) of the optimizer.
    * `average`: (parameters,) the running average, where the recipe wants one.
    * `best`: (parameters,) of the best epoch so far, where the recipe has patience.
    * `losses`, `accuracies`, `rates`: of each epoch so far, as Epoch has them.
    """

    weights: Floats
    memory: Floats
    average: Floats | None = None
    best: Floats | None = None
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @classmethod
    def fresh(cls, network: Network, recipe: Recipe, seed: int) -> "State":
        """Return the state before the first epoch."""
        layers = initialise(network, np.random.default_rng(seed), recipe.initialisation)
        weights = np.concatenate([array.ravel() for layer in layers for array in layer])
        memory = np.zeros((OPTIMIZERS[recipe.optimizer].slots, len(weights)), np.float32)
        average = weights.copy() if recipe.averaging else None
        return cls(weights, memory, average)

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.losses)

    @property
    def current(self) -> Floats:
        """The weights that this epoch came to, averaged where the recipe wants it."""
        return self.weights if self.average is None else self.average

    @property
    def chosen(self) -> Floats:
        """The weights to keep if the training ended here."""
        return self.current if self.best is None else self.best

    def patient(self, patience: int) -> bool:
        """Whether the best accuracy came within the last `patience` epochs, or is not looked at."""
        if not patience or not self.accuracies:
            return True
        best = self.accuracies.index(max(self.accuracies))
        return self.epochs - 1 - best < patience

    def add(self, loss: float, accuracy: float, rate: float, keep_best: bool) -> None:
        """Take note of an epoch."""
        if keep_best and accuracy > max(self.accuracies, default=-1.0):
            self.best = self.current.copy()
        self.losses.append(loss)
        self.accuracies.append(accuracy)
        self.rates.append(rate)
