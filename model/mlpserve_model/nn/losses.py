"""Losses: each with its gradient with respect to the last layer's pre-activation.

`logits` is that pre-activation, `probabilities` its output activation, and `targets` the wanted
probabilities (one-hot, or smoothed): all (rows, classes). A loss is a sum over classes and a mean
over rows.
"""

from collections.abc import Callable

import numpy as np

from mlpserve_model.nn.activations import OUTPUT
from mlpserve_model.nn.types import Array

__all__ = ["LOSSES"]


def cross_entropy(output: str, logits: Array, probabilities: Array, targets: Array) -> float:
    """Return -Σ t log p for softmax, -Σ (t log p + (1-t) log(1-p)) for sigmoid outputs.

    It is computed from the logits, so that no logarithm of an underflowed zero occurs:
    log Σ exp(z) - z for softmax, log(1 + exp(z)) - t z for sigmoid. Identity outputs are no
    probabilities, and have no cross-entropy.
    """
    if output == "softmax":
        top = logits.max(axis=1, keepdims=True)
        log_sum = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        return float((targets * (log_sum - logits)).sum() / len(logits))
    return float((np.logaddexp(0, logits) - targets * logits).sum() / len(logits))


def cross_entropy_backward(output: str, probabilities: Array, targets: Array) -> Array:
    """Return dL/dz = (p - t) / rows; for softmax the targets must sum to 1.

    Both outputs have this short form, since each is the canonical link of its loss:
    Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.6.
    """
    return (probabilities - targets) / len(targets)


def mean_squared_error(output: str, logits: Array, probabilities: Array, targets: Array) -> float:
    """Return ½ Σ (p - t)², with the half as in Nielsen, Neural Networks and Deep Learning (6)."""
    return float(0.5 * np.square(probabilities - targets).sum() / len(targets))


def mean_squared_error_backward(output: str, probabilities: Array, targets: Array) -> Array:
    """Return dL/dp = (p - t) / rows, propagated back through the output activation."""
    return OUTPUT[output].backward((probabilities - targets) / len(targets), probabilities)


Loss = Callable[[str, Array, Array, Array], float]
LossBackward = Callable[[str, Array, Array], Array]

LOSSES: dict[str, tuple[Loss, LossBackward]] = {
    "cross_entropy": (cross_entropy, cross_entropy_backward),
    "mean_squared_error": (mean_squared_error, mean_squared_error_backward),
}
