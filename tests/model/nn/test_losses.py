"""Loss values against formulas written independently, in plain Python."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import log_loss

from mlpserve_model.nn.activations import OUTPUT
from mlpserve_model.nn.losses import LOSSES

Rows = list[list[float]]
LOGITS: Rows = [[0.3, -1.2, 2.0], [4.0, 0.0, -3.0]]
TARGETS: Rows = [[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]]


def _softmax(row: list[float]) -> list[float]:
    return [math.exp(z) / math.fsum(map(math.exp, row)) for z in row]


def _sigmoid(row: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-z)) for z in row]


PROBABILITIES = {"softmax": _softmax, "sigmoid": _sigmoid}
# Identity outputs have the squared error alone, which is that of their values.
VALUES: dict[str, Callable[[list[float]], list[float]]] = {**PROBABILITIES, "identity": list}
KINDS = [(name, output) for name in LOSSES for output in OUTPUT]
KINDS.remove(("cross_entropy", "identity"))


def _cross_entropy(output: str, p: list[float], t: list[float]) -> float:
    terms = [-ti * math.log(pi) for pi, ti in zip(p, t, strict=True)]
    if output == "sigmoid":
        terms += [-(1 - ti) * math.log(1 - pi) for pi, ti in zip(p, t, strict=True)]
    return math.fsum(terms)


def _mean_squared_error(output: str, p: list[float], t: list[float]) -> float:
    return math.fsum((pi - ti) ** 2 / 2 for pi, ti in zip(p, t, strict=True))


FORMULAS = {"cross_entropy": _cross_entropy, "mean_squared_error": _mean_squared_error}


def _loss(name: str, output: str, logits: Any, targets: Any) -> float:
    forward, _ = LOSSES[name]
    return forward(output, logits, OUTPUT[output].forward(logits), targets)


@pytest.mark.parametrize(("name", "output"), KINDS)
def test_a_loss_is_its_formula_summed_over_classes_and_averaged_over_rows(
    name: str, output: str
) -> None:
    rows = zip(map(VALUES[output], LOGITS), TARGETS, strict=True)
    expected = sum(FORMULAS[name](output, p, t) for p, t in rows) / len(LOGITS)
    assert_allclose(_loss(name, output, np.array(LOGITS), np.array(TARGETS)), expected, rtol=1e-12)


def test_cross_entropy_of_labels_is_scikit_learns_log_loss() -> None:
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(40, 6)), np.arange(40) % 6
    expected = log_loss(labels, OUTPUT["softmax"].forward(logits))
    assert_allclose(_loss("cross_entropy", "softmax", logits, np.eye(6)[labels]), expected)


@pytest.mark.parametrize("output", PROBABILITIES)
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_cross_entropy_of_a_sure_and_wrong_answer_is_large_and_finite(
    output: str, size: float
) -> None:
    logits, targets = np.array([[size, -size]], np.float32), np.array([[0, 1]], np.float32)
    assert_allclose(_loss("cross_entropy", output, logits, targets), 2 * size)


@pytest.mark.parametrize("output", PROBABILITIES)
def test_cross_entropy_of_a_sure_and_right_answer_is_zero(output: str) -> None:
    logits, targets = np.array([[1e6, -1e6]], np.float32), np.array([[1, 0]], np.float32)
    assert _loss("cross_entropy", output, logits, targets) == 0


@pytest.mark.parametrize(("name", "output"), KINDS)
def test_the_gradient_of_huge_logits_is_finite(name: str, output: str) -> None:
    logits, targets = np.array([[1e6, -1e6]], np.float32), np.array([[0, 1]], np.float32)
    gradient = LOSSES[name][1](output, OUTPUT[output].forward(logits), targets)
    assert np.isfinite(gradient).all()
