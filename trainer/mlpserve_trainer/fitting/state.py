"""The state of a training between two epochs: everything that a checkpoint holds."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import Layer, Network, Weights, initialise
from mlpserve_model.nn.types import Array
from mlpserve_trainer.fitting.optimizers import OPTIMIZERS
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["TrainingState", "layers_of", "vector_of"]

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class TrainingState:
    """A training between two epochs.

    Attributes:
        weights: Parameters (parameters,) from which the optimizer continues.
        optimizer_state: Vectors (vectors, parameters) that the optimizer keeps between steps.
        average: Running average (parameters,) of the weights, if the recipe asks for one.
        best: Parameters (parameters,) of the best epoch so far, if the recipe has patience.
        losses: Mean training loss of each completed epoch.
        accuracies: Validation accuracy after each completed epoch.
        learning_rates: Last learning rate of each completed epoch.
    """

    weights: Floats
    optimizer_state: Floats
    average: Floats | None = None
    best: Floats | None = None
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)

    @classmethod
    def initial(cls, network: Network, recipe: Recipe, seed: int) -> "TrainingState":
        """Return the state before the first epoch."""
        layers = initialise(network, np.random.default_rng(seed), recipe.initialisation)
        weights = vector_of(layers)
        vectors = OPTIMIZERS[recipe.optimizer].state_vectors
        average = weights.copy() if recipe.averaging else None
        return cls(weights, np.zeros((vectors, len(weights)), np.float32), average)

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return len(self.losses)

    @property
    def current(self) -> Floats:
        """Parameters after the last epoch, averaged if the recipe asks for it."""
        return self.weights if self.average is None else self.average

    @property
    def chosen(self) -> Floats:
        """Parameters to keep if the training ended here."""
        return self.current if self.best is None else self.best

    def continues(self, first: "TrainingState") -> bool:
        """Return True if this can be a later state of the training that begins with `first`."""
        curves: tuple[Any, ...] = (self.losses, self.accuracies, self.learning_rates)
        numbers = (isinstance(c, list) and all(type(x) is float for x in c) for c in curves)
        return (
            _alike(self.weights, first.weights)
            and _alike(self.optimizer_state, first.optimizer_state)
            and _alike(self.average, first.average)
            and (self.best is None or _alike(self.best, first.weights))
            and all(numbers)
            and len(self.losses) == len(self.accuracies) == len(self.learning_rates) > 0
        )

    def is_patient(self, patience: int) -> bool:
        """Return True if the best epoch is among the last `patience` ones, or if that is 0."""
        if not patience or not self.accuracies:
            return True
        best = self.accuracies.index(max(self.accuracies))
        return self.epochs - 1 - best < patience

    def add_epoch(
        self, loss: float, accuracy: float, learning_rate: float, keep_best: bool
    ) -> None:
        """Record a completed epoch; with `keep_best`, copy the weights if it is the best one."""
        if keep_best and accuracy > max(self.accuracies, default=-1.0):
            self.best = self.current.copy()
        self.losses.append(loss)
        self.accuracies.append(accuracy)
        self.learning_rates.append(learning_rate)


def _alike(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and bool(np.isfinite(one).all())


def layers_of(network: Network, vector: Array) -> Weights:
    """Return the layers as views into one vector (parameters,): w1, b1, w2, b2, ..."""
    layers, start = [], 0
    for inputs, units in network.layer_shapes:
        middle, end = start + inputs * units, start + (inputs + 1) * units
        layers.append(Layer(vector[start:middle].reshape(inputs, units), vector[middle:end]))
        start = end
    return tuple(layers)


def vector_of(layers: Weights) -> Array:
    """Return a new vector (parameters,) of all layers, in the order of `layers_of`."""
    return np.concatenate([array.ravel() for layer in layers for array in layer])
