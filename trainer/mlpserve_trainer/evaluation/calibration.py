"""Calibration: measure whether probabilities match frequencies, and correct them."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlpserve_model import Layer, Network, Weights
from mlpserve_model.nn.activations import softmax
from mlpserve_model.store.evidence.statistics import boundary
from mlpserve_trainer.datasets.dataset import Labels

__all__ = [
    "Reliability",
    "apply_temperature",
    "calibrated_network",
    "expected_calibration_error",
    "fit_temperature",
    "reliability",
]

Probabilities = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

BINS = 15
LOWEST, HIGHEST = 0.05, 1000.0  # the logits of saturated sigmoid outputs are in the hundreds
# Platt has 1. On scikit-learn's digits, 0.1 gave a log loss of 0.052 over ten seeds; with 1 the
# answers were underconfident (0.069), without smoothing overconfident (0.141).
PRIOR = 0.1


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions in bins by their confidence: (BINS,) each, 0 where a bin is empty.

    * `rows`: number of predictions.
    * `confidence`, `accuracy`: their mean probability, and the fraction that is correct.
    """

    rows: npt.NDArray[np.int64]
    confidence: Doubles
    accuracy: Doubles


def reliability(probabilities: Probabilities, labels: Labels) -> Reliability:
    """Count the predictions (n, classes) in bins of equal width."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    some = np.maximum(rows, 1)
    return Reliability(
        rows,
        np.bincount(bins, weights=confidence, minlength=BINS) / some,
        np.bincount(bins, weights=right, minlength=BINS) / some,
    )


def expected_calibration_error(bins: Reliability) -> float:
    """Return the mean gap between confidence and accuracy.

    Guo et al., On calibration of modern neural networks (2017), eq. 3.
    """
    return float(np.average(np.abs(bins.confidence - bins.accuracy), weights=bins.rows))


def calibrated_network(network: Network) -> Network:
    """Return a network whose probabilities a temperature can calibrate: with softmax outputs.

    Sigmoid outputs say of each class by itself how probable it is, and no common factor makes
    them match the frequencies of classes of which each row has one. Softmax divides their odds,
    exp(logit), by the sum of all. The order of the classes stays the same.
    """
    return replace(network, activations=(*network.activations[:-1], "softmax"))


def fit_temperature(logits: Doubles, labels: Labels) -> float:
    """Return the temperature that makes the labels most likely, by softmax of the logits.

    Guo et al. (2017), section 4.2. The targets are smoothed as in Platt, Probabilistic outputs for
    support vector machines (1999), section 2.2: a few rows, all of them predicted correctly, would
    otherwise give the lowest temperature.

    The likelihood has one maximum: where the logits have the mean under the probabilities that they
    have under the targets. Colder, the probabilities are too sure, and the mean is higher.

    Args:
        logits: Those (n, classes) of rows that were neither trained on nor judge.
        labels: Their labels (n,).
    """
    expected = (_smoothed(labels, logits.shape[1]) * logits).sum()

    def is_too_sure(logarithm: float) -> bool:
        return bool((softmax(logits / math.exp(logarithm)) * logits).sum() > expected)

    return math.exp(boundary(is_too_sure, math.log(LOWEST), math.log(HIGHEST)))


def apply_temperature(weights: Weights, temperature: float) -> Weights:
    """Return the weights with the last layer, and so the logits, divided by the temperature."""
    w, b = weights[-1]
    return (*weights[:-1], Layer(w / np.float32(temperature), b / np.float32(temperature)))


def _smoothed(labels: Labels, classes: int) -> Doubles:
    """Return targets (n, classes) as if PRIOR rows had another label, and as many their own."""
    rows = len(labels)
    other = PRIOR / (rows + 2 * PRIOR)
    targets = np.full((rows, classes), other / max(classes - 1, 1))
    targets[np.arange(rows), labels] = 1 - other
    return targets
