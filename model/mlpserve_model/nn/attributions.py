"""Which inputs an answer came from: DeepLIFT's Rescale rule, beside the forward pass it explains.

Two forward passes, of the input and of a baseline, and one backward pass in which the derivative
of each activation is replaced by its slope between the two (Shrikumar et al. 2017, "Learning
Important Features Through Propagating Activation Differences", section 3.5.1). By construction
the attributions of a row sum to the difference between the two logits.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.nn.activations import HIDDEN, OUTPUT, Activation
from mlpserve_model.nn.network import Network, Weights, pre_activation
from mlpserve_model.nn.types import Array

__all__ = ["Attributions", "attributions"]

# Below this difference of pre-activations a slope is mostly rounding error: the derivative is
# used instead, which differs from it by as little.
_MIN_DIFFERENCE = 1e-6


class Attributions(NamedTuple):
    """Why each of `rows` instances got the logit of its label.

    Attributes:
        values: (rows, inputs); each row sums to score - baseline score.
        labels: (rows,) int64, the classes explained.
        scores: (rows,), the label's logit for the instance.
        baseline_scores: (rows,), the label's logit for the baseline.
        activations: of each hidden layer, (rows, units), for the instance.

    """

    values: Array
    labels: NDArray[np.int64]
    scores: Array
    baseline_scores: Array
    activations: tuple[Array, ...]


def attributions(
    network: Network, weights: Weights, x: Array, baseline: Array, label: int | None = None
) -> Attributions:
    """Attribute a class's logit to the inputs.

    Args:
        network: the shape of the network.
        weights: its weights.
        x: (rows, inputs), the instances.
        baseline: (inputs,) or (rows, inputs), what they are compared with.
        label: the class to explain; None explains the predicted class of each row.

    Raises:
        ValueError: the label is not a class of the network.

    """
    if label is not None and not 0 <= label < network.classes:
        raise ValueError(f"label {label}, expected 0 to {network.classes - 1}")
    baseline = np.atleast_2d(baseline)  # one row is enough where it is the same for all
    a, a0, activations, slopes = x, baseline, [], []
    for layer, name in zip(weights[:-1], network.activations, strict=False):
        hidden = HIDDEN[name]
        z, z0 = pre_activation(layer, a), pre_activation(layer, a0)
        slopes.append(_slope(hidden, z, z0))
        a, a0 = hidden.forward(z), hidden.forward(z0)
        activations.append(a)
    logits = pre_activation(weights[-1], a)
    logits0 = np.broadcast_to(pre_activation(weights[-1], a0), logits.shape)
    labels = _labels(network, logits, label)

    grad = weights[-1].w.T[labels]  # of the label's logit with respect to the last activation
    for layer, slope in zip(weights[-2::-1], slopes[::-1], strict=True):
        grad = (grad * slope) @ layer.w.T
    rows = np.arange(len(x))
    values: Array = (x - baseline) * grad
    return Attributions(
        values, labels, logits[rows, labels], logits0[rows, labels], tuple(activations)
    )


def _slope(activation: Activation, z: Array, z0: Array) -> Array:
    """Return (f(z) - f(z0)) / (z - z0), and f'(z) where the two nearly meet.

    It is computed in float64: in float32 the difference of two activations that are close is
    mostly rounding, which shifted attributions of a sigmoid network on MNIST by up to 0.001.
    """
    dtype, z, z0 = z.dtype, z.astype(np.float64), z0.astype(np.float64)
    difference, a, a0 = z - z0, activation.forward(z), activation.forward(z0)
    derivative = activation.gradient(np.ones_like(a), z, a)
    far = np.abs(difference) > _MIN_DIFFERENCE
    slope: Array = np.divide(a - a0, difference, out=derivative, where=far).astype(dtype)
    return slope


def _labels(network: Network, logits: Array, label: int | None) -> NDArray[np.int64]:
    if label is not None:
        return np.full(len(logits), label, np.int64)
    # Of the probabilities, as the answers have it: two of them may be equal where logits are not.
    labels: NDArray[np.int64] = OUTPUT[network.output_activation].forward(logits).argmax(axis=1)
    return labels
