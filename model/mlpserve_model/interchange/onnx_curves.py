"""Functions of one value, known by their values on a grid.

Exporters write an activation as one operator or as several (silu as x * sigmoid(x), gelu by the
error function). All of them are computed on the same grid, and what comes out is compared with the
activations that a version can have.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.nn.activations import HIDDEN
from mlpserve_model.nn.types import Array

__all__ = [
    "ELEMENTWISE",
    "GRID",
    "SETTLING",
    "Samples",
    "affine_of",
    "compute",
    "is_pair",
    "name_of",
]

Samples = NDArray[np.floating[Any]]

_FAR = np.logspace(1.5, 6, 60)
GRID: Samples = np.concatenate([np.linspace(-20, 20, 2001), _FAR, -_FAR])
_ZERO, _ONE = int(np.abs(GRID).argmin()), int(np.abs(GRID - 1).argmin())
# Constants of files are float32.
_TOLERANCE = 1e-6


def affine_of(samples: Samples) -> tuple[float, float] | None:
    """Return (a, b) if these are the values of a x + b on the grid."""
    b = float(samples[_ZERO])
    a = (float(samples[_ONE]) - b) / float(GRID[_ONE])
    return (a, b) if _close(samples, a * GRID + b) else None


def name_of(samples: Samples) -> str | None:
    """Return the hidden activation that has these values on the grid."""
    found = (name for name, f in HIDDEN.items() if _close(samples, f.forward(GRID)))
    return next(found, None)


def is_pair(first: Samples, second: Samples) -> bool:
    """Return True for 1 - sigmoid(x) and sigmoid(x), the probabilities of two classes."""
    return name_of(second) == "sigmoid" and _close(first, 1 - second)


def compute(operator: str, attributes: dict[str, Any], *arrays: Array) -> Array:
    """Return what an operator of ELEMENTWISE computes."""
    result: Array = np.asarray(ELEMENTWISE[operator](attributes, *arrays))
    return result


def _close(samples: Array, wanted: Array) -> bool:
    return bool((np.abs(samples - wanted) <= _TOLERANCE * (1 + np.abs(wanted))).all())


def _elu(x: Array, alpha: float, gamma: float = 1.0) -> Array:
    scaled: Array = gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    return scaled


def _sigmoid(x: Array) -> Array:
    a: Array = 1 / (1 + np.exp(-x))
    return a


def _erf(x: Array) -> Array:
    values = np.array([math.erf(value) for value in x.ravel().tolist()])
    return values.reshape(x.shape)


def _gelu(attributes: dict[str, Any], x: Array) -> Array:
    if attributes.get("approximate") in (b"tanh", "tanh"):
        twice = 1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        twice = 1 + _erf(x / math.sqrt(2))
    a: Array = 0.5 * x * twice
    return a


def _clip(attributes: dict[str, Any], x: Array, *bounds: Array) -> Array:
    low, high = (*bounds, None, None)[:2]
    low = attributes.get("min", -np.inf) if low is None else low
    high = attributes.get("max", np.inf) if high is None else high
    clipped: Array = np.minimum(np.maximum(x, low), high)
    return clipped


def _largest(_: dict[str, Any], x: Array, *others: Array) -> Array:
    for other in others:
        x = np.maximum(x, other)
    return x


# Of opset 7 and later, with their default attributes.
ELEMENTWISE: dict[str, Any] = {
    "Abs": lambda _, x: np.abs(x),
    "Add": lambda _, x, y: x + y,
    "Celu": lambda a, x: _elu(x / (t := a.get("alpha", 1.0)), 1.0) * t,
    "Clip": _clip,
    "Div": lambda _, x, y: x / y,
    "Elu": lambda a, x: _elu(x, a.get("alpha", 1.0)),
    "Erf": lambda _, x: _erf(x),
    "Exp": lambda _, x: np.exp(x),
    "Gelu": _gelu,
    "HardSigmoid": lambda a, x: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda _, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda a, x: np.where(x < 0, a.get("alpha", 0.01) * x, x),
    "Log": lambda _, x: np.log(x),
    "Max": _largest,
    "Min": lambda _, x, y: np.minimum(x, y),
    "Mish": lambda _, x: x * np.tanh(np.logaddexp(0, x)),
    "Mul": lambda _, x, y: x * y,
    "Neg": lambda _, x: -x,
    "PRelu": lambda _, x, y: np.where(x < 0, y * x, x),
    "Pow": lambda _, x, y: x**y,
    "Reciprocal": lambda _, x: 1 / x,
    "Relu": lambda _, x: np.maximum(x, 0),
    "Selu": lambda a, x: _elu(
        x, a.get("alpha", 1.6732632423543772), a.get("gamma", 1.0507009873554805)
    ),
    "Sigmoid": lambda _, x: _sigmoid(x),
    "Softplus": lambda _, x: np.logaddexp(0, x),
    "Softsign": lambda _, x: x / (1 + np.abs(x)),
    "Sqrt": lambda _, x: np.sqrt(x),
    "Sub": lambda _, x, y: x - y,
    "Swish": lambda a, x: x * _sigmoid(a.get("alpha", 1.0) * x),
    "Tanh": lambda _, x: np.tanh(x),
    "ThresholdedRelu": lambda a, x: np.where(x > a.get("alpha", 1.0), x, 0),
}
# These begin a new activation if what they take is one, or a x + b; the others may be parts of one.
SETTLING = frozenset(
    ("Clip", "Elu", "Gelu", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Swish", "Tanh")
)
