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

    The step uses their section 2 remark: both bias corrections go into the rate and into
    epsilon, so that no corrected moments need computing.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, weights: Weights) -> None:
        self._steps = 0
        self._means = [np.zeros_like(w) for w in _arrays(weights)]
        self._squares = [np.zeros_like(w) for w in _arrays(weights)]
        self._scratch = [np.empty_like(w) for w in _arrays(weights)]

    def step(self, weights: Weights, gradients: Weights, learning_rate: float) -> None:
        """Make one step."""
        self._steps += 1
        correction = math.sqrt(1 - self.beta2**self._steps)
        rate = learning_rate * correction / (1 - self.beta1**self._steps)
        buffers = zip(
            _arrays(weights),
            _arrays(gradients),
            self._means,
            self._squares,
            self._scratch,
            strict=True,
        )
        for w, g, mean, square, scratch in buffers:
            self._update(w, g, mean, square, scratch, rate, self.epsilon * correction)

    def _update(
        self, w: Array, g: Array, mean: Array, square: Array, s: Array, rate: float, epsilon: float
    ) -> None:
        np.multiply(g, 1 - self.beta1, out=s)
        np.multiply(mean, self.beta1, out=mean)
        np.add(mean, s, out=mean)
        np.square(g, out=g)
        np.multiply(g, 1 - self.beta2, out=g)
        np.multiply(square, self.beta2, out=square)
        np.add(square, g, out=square)
        np.sqrt(square, out=s)
        np.add(s, epsilon, out=s)
        np.divide(mean, s, out=s)
        np.multiply(s, rate, out=s)
        np.subtract(w, s, out=w)


def _arrays(weights: Weights) -> list[Array]:
    return [array for layer in weights for array in layer]


OPTIMIZERS: dict[str, Callable[[Weights], Optimizer]] = {"adam": Adam, "sgd": Sgd}

# The learning rate as a share of the first one, from progress 0 (first step) to 1 (the end).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
