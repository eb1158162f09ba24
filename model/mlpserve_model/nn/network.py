"""The multi-layer perceptron: its shape, its weights, and the pure forward and backward passes.

Rows are instances: `x` is (rows, inputs), and a layer computes a = f(x @ w + b) with `w` of shape
(inputs, units) and `b` of shape (units,). Functions keep the floating type of their arguments.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from mlpserve_model.nn.losses import LOSSES
from mlpserve_model.nn.types import Array

__all__ = [
    "Layer",
    "Network",
    "Weights",
    "forward",
    "initialise",
    "logits",
    "loss_and_gradients",
    "pre_activation",
    "scale_pixels",
]


@dataclass(frozen=True, slots=True)
class Network:
    """The shape of a network.

    Attributes:
        layer_sizes: Sizes from the inputs to the classes.
        activations: One activation for each layer, the last one of OUTPUT, all others of HIDDEN;
            if empty, they become relu, and softmax for the last layer.

    Raises:
        ValueError: There are fewer than two sizes or one below 1, or an activation is unknown, or
            there are more or fewer of them than layers.

    """

    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.layer_sizes) < 2 or min(self.layer_sizes) < 1:
            raise ValueError(f"layer_sizes must be two or more sizes >= 1, got {self.layer_sizes}")
        layers = len(self.layer_sizes) - 1
        if not self.activations:
            object.__setattr__(self, "activations", ("relu",) * (layers - 1) + ("softmax",))
        if len(self.activations) != layers:
            raise ValueError(f"{len(self.activations)} activations for {layers} layers")
        for name in self.activations[:-1]:
            if name not in HIDDEN:
                raise ValueError(_unknown("hidden activation", name, HIDDEN))
        if self.output_activation not in OUTPUT:
            raise ValueError(_unknown("output activation", self.output_activation, OUTPUT))

    @classmethod
    def uniform(
        cls, layer_sizes: tuple[int, ...], hidden: str = "relu", output: str = "softmax"
    ) -> "Network":
        """Return a network whose hidden layers all have the same activation; see `Network`."""
        return cls(layer_sizes, (hidden,) * (len(layer_sizes) - 2) + (output,))

    @property
    def output_activation(self) -> str:
        """The activation of the last layer."""
        return self.activations[-1]

    @property
    def inputs(self) -> int:
        """The number of values of one instance."""
        return self.layer_sizes[0]

    @property
    def classes(self) -> int:
        """The number of probabilities of an answer."""
        return self.layer_sizes[-1]

    @property
    def layer_shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape (inputs, units) of every layer's `w`, first layer first."""
        return tuple(zip(self.layer_sizes[:-1], self.layer_sizes[1:], strict=True))

    @property
    def parameters(self) -> int:
        """The number of weights and biases."""
        return sum((inputs + 1) * units for inputs, units in self.layer_shapes)


class Layer(NamedTuple):
    """One layer's weights: `w` (inputs, units) and `b` (units,)."""

    w: Array
    b: Array


Weights: TypeAlias = tuple[Layer, ...]


# The annotation is text, since NumPy imports its random numbers when they are named, and a server
# draws none.
def initialise(network: Network, rng: "np.random.Generator", scheme: str = "he") -> Weights:
    """Draw float32 weights; biases are zero.

    Args:
        network: The shape.
        rng: The source of randomness.
        scheme: `he` draws from N(0, 2 / inputs) (He et al. 2015, section 2.2), `xavier` uniformly
            within ±sqrt(6 / (inputs + units)) (Glorot and Bengio 2010, eq. 16).

    Raises:
        ValueError: The scheme is unknown.

    """
    if scheme not in INITIALISERS:
        raise ValueError(_unknown("initialisation", scheme, INITIALISERS))
    draw = INITIALISERS[scheme]
    return tuple(
        Layer(draw(rng, inputs, units).astype(np.float32), np.zeros(units, np.float32))
        for inputs, units in network.layer_shapes
    )


def forward(network: Network, weights: Weights, x: Array) -> Array:
    """Return the probabilities (rows, classes) of `x` (rows, inputs).

    With `identity` as output activation they are the last layer's values as they are.
    """
    return OUTPUT[network.output_activation].forward(logits(network, weights, x))


def logits(network: Network, weights: Weights, x: Array) -> Array:
    """Return what the output activation is applied to: (rows, classes) of `x` (rows, inputs)."""
    a = x
    for layer, name in zip(weights[:-1], network.activations, strict=False):
        a = HIDDEN[name].forward(pre_activation(layer, a))
    return pre_activation(weights[-1], a)


def loss_and_gradients(
    network: Network, weights: Weights, x: Array, targets: Array, loss: str = "cross_entropy"
) -> tuple[float, Weights]:
    """Return the loss and its gradients, which have the shapes of the weights.

    Backpropagation as in Nielsen, Neural Networks and Deep Learning (2015), BP1 to BP4, in
    matrix form.

    Args:
        network: The shape.
        weights: The weights.
        x: The instances, (rows, inputs).
        targets: The wanted probabilities, (rows, classes).
        loss: A key of LOSSES.

    Raises:
        ValueError: The loss is unknown, or is not one of the output activation.

    """
    if loss not in LOSSES:
        raise ValueError(_unknown("loss", loss, LOSSES))
    loss_forward, loss_backward = LOSSES[loss]
    hidden, output = [HIDDEN[name] for name in network.activations[:-1]], network.output_activation
    if (output, loss) == ("identity", "cross_entropy"):
        raise ValueError("cross_entropy needs probabilities: use softmax or sigmoid outputs")

    activations, pre_activations = [x], []
    for layer, activation in zip(weights[:-1], hidden, strict=True):
        pre_activations.append(pre_activation(layer, activations[-1]))
        activations.append(activation.forward(pre_activations[-1]))
    logits = pre_activation(weights[-1], activations[-1])
    probabilities = OUTPUT[output].forward(logits)

    delta = loss_backward(output, probabilities, targets)
    gradients = [_layer_gradient(activations[-1], delta)]
    for level in range(len(hidden) - 1, -1, -1):
        z, a, below = pre_activations[level], activations[level + 1], activations[level]
        delta = hidden[level].gradient(delta @ weights[level + 1].w.T, z, a)
        gradients.append(_layer_gradient(below, delta))
    return loss_forward(output, logits, probabilities, targets), tuple(reversed(gradients))


def scale_pixels(pixels: NDArray[np.uint8], maximum: float) -> NDArray[np.float32]:
    """Return raw uint8 values as float32 from 0 to 1; nothing else scales pixels."""
    return np.multiply(pixels, np.float32(1 / maximum), dtype=np.float32)


def pre_activation(layer: Layer, a: Array) -> Array:
    """Return a @ w + b: (rows, units) of `a` (rows, inputs)."""
    z: Array = a @ layer.w
    z += layer.b  # in place, which spares a second array of that size
    return z


def _layer_gradient(below: Array, delta: Array) -> Layer:
    return Layer(below.T @ delta, delta.sum(axis=0))


def _he(rng: "np.random.Generator", inputs: int, units: int) -> NDArray[np.float64]:
    return rng.normal(0, math.sqrt(2 / inputs), (inputs, units))


def _xavier(rng: "np.random.Generator", inputs: int, units: int) -> NDArray[np.float64]:
    limit = math.sqrt(6 / (inputs + units))
    return rng.uniform(-limit, limit, (inputs, units))


INITIALISERS = {"he": _he, "xavier": _xavier}


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"unknown {what} {name!r}: use one of {', '.join(known)}"
