"""Activation functions: each forward with its backward beside it, pure.

A backward function takes the gradient of the loss with respect to the activation `a`, and `a`
itself, and returns the gradient with respect to the pre-activation `z`. With the derivative
written in terms of `a`, `z` need not be stored. Arrays are (rows, units); their floating type is
kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlpserve_model.nn.types import Array

__all__ = ["HIDDEN", "OUTPUT", "Activation"]


class Activation(NamedTuple):
    """A pair of pure functions."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array, Array], Array]


def relu(z: Array) -> Array:
    """Return max(z, 0)."""
    return np.maximum(z, 0)


def relu_backward(grad: Array, a: Array) -> Array:
    """Return dL/dz = dL/da where z > 0, else 0; z > 0 exactly where a > 0."""
    return grad * (a > 0)


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)), in the form that cannot overflow for the sign of z."""
    e: Array = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def sigmoid_backward(grad: Array, a: Array) -> Array:
    """Return dL/dz = dL/da · a(1 - a)."""
    return grad * a * (1 - a)


def tanh(z: Array) -> Array:
    """Return the hyperbolic tangent of z."""
    a: Array = np.tanh(z)
    return a


def tanh_backward(grad: Array, a: Array) -> Array:
    """Return dL/dz = dL/da · (1 - a²)."""
    return grad * (1 - a * a)


def softmax(z: Array) -> Array:
    """Return exp(z) / Σ exp(z) of each row; subtracting the row's maximum prevents overflow."""
    # The ufuncs' own reductions: for one row, the overhead of z.max() costs more than the work.
    a: Array = z - np.maximum.reduce(z, axis=1, keepdims=True)
    np.exp(a, out=a)
    a /= np.add.reduce(a, axis=1, keepdims=True)
    return a


def softmax_backward(grad: Array, a: Array) -> Array:
    """Return dL/dz_i = a_i (dL/da_i - Σ_j dL/da_j a_j): the Jacobian diag(a) - a aᵀ, by row."""
    delta: Array = a * (grad - (grad * a).sum(axis=1, keepdims=True))
    return delta


HIDDEN = {
    "relu": Activation(relu, relu_backward),
    "sigmoid": Activation(sigmoid, sigmoid_backward),
    "tanh": Activation(tanh, tanh_backward),
}
OUTPUT = {
    "softmax": Activation(softmax, softmax_backward),
    "sigmoid": Activation(sigmoid, sigmoid_backward),
}
