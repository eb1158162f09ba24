import numpy as np
import pytest

from mlpserve_model import Network, forward, initialise
from mlpserve_model.nn.activations import softmax
from mlpserve_model.nn.network import logits
from mlpserve_trainer.evaluation.calibration import (
    BINS,
    apply_temperature,
    calibrated_network,
    expected_calibration_error,
    fit_temperature,
    reliability,
)

RNG = np.random.default_rng(1)
TRUE_LOGITS = RNG.normal(0, 2, (20_000, 4))
TRUE = (np.exp(TRUE_LOGITS) / np.exp(TRUE_LOGITS).sum(axis=1, keepdims=True)).astype(np.float32)
LABELS = (TRUE.cumsum(axis=1) < RNG.random((len(TRUE), 1))).sum(axis=1).clip(max=3)


def test_each_prediction_falls_into_the_bin_of_its_confidence() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55]], np.float32)
    bins = reliability(answers, np.array([0, 1, 1]))
    assert bins.rows.tolist() == [0] * 8 + [1] + [0] * 5 + [2]
    assert (bins.confidence[-1], bins.accuracy[-1]) == (pytest.approx(0.975), 0.5)
    assert (bins.confidence[0], bins.accuracy[0]) == (0, 0)
    assert len(bins.rows) == BINS


def test_the_expected_error_is_the_mean_gap_over_rows() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55]], np.float32)
    error = expected_calibration_error(reliability(answers, np.array([0, 1, 1])))
    assert error == pytest.approx((2 * 0.475 + 0.45) / 3, rel=1e-6)


def test_a_few_rows_that_are_all_right_make_nothing_certain() -> None:
    given = np.array([[1.1, -1.1], [-0.7, 0.7], [0.4, -0.4]])
    assert softmax(given / fit_temperature(given, np.array([0, 1, 0]))).max() < 0.999


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0, 300.0])
def test_the_temperature_undoes_a_confidence_that_is_off(temperature: float) -> None:
    distorted = TRUE_LOGITS * temperature
    found = fit_temperature(distorted, LABELS)
    assert found == pytest.approx(temperature, rel=0.05)
    mended = softmax(distorted / found).astype(np.float32)
    assert expected_calibration_error(reliability(mended, LABELS)) < 0.02


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_calibrated_network_answers_with_the_softmax_of_its_scaled_logits(output: str) -> None:
    network = Network.uniform((5, 8, 4), output=output)
    weights = initialise(network, np.random.default_rng(2))
    x = RNG.random((7, 5), dtype=np.float32)
    answers = forward(calibrated_network(network), apply_temperature(weights, 1.7), x)
    np.testing.assert_allclose(answers, softmax(logits(network, weights, x) / 1.7), atol=1e-6)
    before = forward(network, weights, x)
    assert (answers.argmax(axis=1) == before.argmax(axis=1)).all()
