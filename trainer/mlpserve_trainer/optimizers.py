"""Optimizers: how gradients change the weights, in place and without temporaries."""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mlpserve_model.network import Weights
from mlpserve_model.types import Array

__all__ = ["OPTIMIZERS", "SCHEDULES", "Adam", "Optimizer", "Sgd"]


class Optimizer(Protocol):
    """Something that makes one step."""

    def step(self, weights: Weights, gradients: Weights, learning_rate: float) -> None:
        """Change the weights in place; the gradients are used up as scratch space."""


class Sgd:
    """Plain gradient descent: w <- w - rate · g."""

    def __init__(self, weights: Weights) -> None:
        del weights  # It remembers nothing about them; other optimizers do.

    def step(self, weights: Weights, gradients: Weights, learning_rate: float) -> None:
        """Make one step."""
        for w, g in zip(_arrays(weights), _arrays(gradients), strict=True):
            np.multiply(g, learning_rate, out=g)
            np.subtract(w, g, out=w)


class Adam:
    """Adam, as in Kingma and Ba, Adam: a method for stochastic optimization (2015).

    The moments are kept without their factors 1 - beta, and without correction for bias: all
    of that goes into the rate and into epsilon, as in the remark at the end of their section 2,
    which leaves ten passes over the weights.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, weights: Weights) -> None:
        self._steps = 0
        self._means = [np.zeros_like(w) for w in _arrays(weights)]
        self._squares = [np.zeros_like(w) for w in _arrays(weights)]

    def step(self, weights: Weights, gradients: Weights, learning_rate: float) -> None:
        """Make one step."""
        self._steps += 1
        mean_factor = (1 - self.beta1) / (1 - self.beta1**self._steps)
        square_factor = math.sqrt((1 - self.beta2) / (1 - self.beta2**self._steps))
        rate, epsilon = learning_rate * mean_factor / square_factor, self.epsilon / square_factor
        for w, g, mean, square in zip(
            _arrays(weights), _arrays(gradients), self._means, self._squares, strict=True
        ):
            self._update(w, g, mean, square, rate, epsilon)

    def _update(
        self, w: Array, g: Array, mean: Array, square: Array, rate: float, epsilon: float
    ) -> None:
        np.multiply(mean, self.beta1, out=mean)
        np.add(mean, g, out=mean)
        np.multiply(square, self.beta2, out=square)
        np.square(g, out=g)
        np.add(square, g, out=square)
        # From here on g holds the step.
        np.sqrt(square, out=g)
        np.add(g, epsilon, out=g)
        np.divide(mean, g, out=g)
        np.multiply(g, rate, out=g)
        np.subtract(w, g, out=w)


def _arrays(weights: Weights) -> list[Array]:
    return [array for layer in weights for array in layer]


OPTIMIZERS: dict[str, Callable[[Weights], Optimizer]] = {"adam": Adam, "sgd": Sgd}

# The learning rate as a share of the first one, from progress 0 (first step) to 1 (the end).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
