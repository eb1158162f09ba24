"""Calibration: whether a probability of 0.9 is right nine times in ten, and how to make it so."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model import Layer, Weights
from mlpserve_trainer.datasets.dataset import Labels

__all__ = ["Reliability", "cooled", "expected_error", "fit_temperature", "reliability", "scaled"]

Probabilities = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions gathered by their confidence: (BINS,) each, 0 where a bin is empty.

    * `rows`: how many predictions a bin has.
    * `confidence`, `accuracy`: their mean probability, and the share of them that is right.
    """

    rows: npt.NDArray[np.int64]
    confidence: Doubles
    accuracy: Doubles


def reliability(probabilities: Probabilities, labels: Labels) -> Reliability:
    """Gather the predictions (n, classes) into bins of equal width."""
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


def expected_error(bins: Reliability) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy.

    Guo et al., On calibration of modern neural networks (2017), eq. 3.
    """
    return float(np.average(np.abs(bins.confidence - bins.accuracy), weights=bins.rows))


def scaled(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return the softmax of the logits divided by the temperature, from probabilities alone."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers: Probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return answers


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Return the temperature that makes these answers most likely: Guo et al. (2017), section 4.2.

    To be fitted on examples that were not trained on, and not on those that judge.
    """
    # Imported here: a tenth of a second that most commands do not need.
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def log_loss(logarithm: float) -> float:
        answers = scaled(probabilities, float(np.exp(logarithm)))[rows, labels]
        return -float(np.log(np.maximum(answers, np.finfo(np.float32).tiny)).mean())

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found: Any = minimize_scalar(log_loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def cooled(weights: Weights, temperature: float) -> Weights:
    """Return the weights with the last layer divided by the temperature, and so the logits."""
    w, b = weights[-1]
    return (*weights[:-1], Layer(w / np.float32(temperature), b / np.float32(temperature)))
