import numpy as np
import pytest

from mlpserve_model import Network, forward, initialise
from mlpserve_trainer.evaluation.calibration import (
    BINS,
    cooled,
    expected_error,
    fit_temperature,
    reliability,
    scaled,
)

RNG = np.random.default_rng(1)
TRUE_LOGITS = RNG.normal(0, 2, (20_000, 4))
TRUE = (np.exp(TRUE_LOGITS) / np.exp(TRUE_LOGITS).sum(axis=1, keepdims=True)).astype(np.float32)
LABELS = np.array([RNG.choice(4, p=p / p.sum()) for p in TRUE.astype(np.float64)])


def test_each_prediction_falls_into_the_bin_of_its_confidence() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55]], np.float32)
    bins = reliability(answers, np.array([0, 1, 1]))
    assert bins.rows.tolist() == [0] * 8 + [1] + [0] * 5 + [2]
    assert (bins.confidence[-1], bins.accuracy[-1]) == (pytest.approx(0.975), 0.5)
    assert (bins.confidence[0], bins.accuracy[0]) == (0, 0)
    assert len(bins.rows) == BINS


def test_the_expected_error_is_the_mean_gap_over_rows() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55]], np.float32)
    error = expected_error(reliability(answers, np.array([0, 1, 1])))
    assert error == pytest.approx((2 * 0.475 + 0.45) / 3, rel=1e-6)


def test_scaling_divides_the_logits() -> None:
    logits = np.array([[1.0, 2.0, 4.0]])
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    answers = (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)
    np.testing.assert_allclose(scaled(answers, 2.0), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_confidence_that_is_off(temperature: float) -> None:
    distorted = scaled(TRUE, 1 / temperature)
    found = fit_temperature(distorted, LABELS)
    assert found == pytest.approx(temperature, rel=0.05)
    after = expected_error(reliability(scaled(distorted, found), LABELS))
    assert after < 0.02


def test_cooled_weights_answer_with_scaled_probabilities() -> None:
    network = Network((5, 8, 4))
    weights = initialise(network, np.random.default_rng(2))
    x = RNG.random((7, 5), dtype=np.float32)
    expected = scaled(forward(network, weights, x).astype(np.float32), 1.7)
    np.testing.assert_allclose(forward(network, cooled(weights, 1.7), x), expected, atol=1e-6)
