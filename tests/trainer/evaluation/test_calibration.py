import numpy as np
import pytest

from mlpserve_model import Network, forward, initialise
from mlpserve_trainer.evaluation.calibration import (
    BINS,
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability,
    with_temperature,
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
    error = expected_calibration_error(reliability(answers, np.array([0, 1, 1])))
    assert error == pytest.approx((2 * 0.475 + 0.45) / 3, rel=1e-6)


def test_scaling_divides_the_logits() -> None:
    logits = np.array([[1.0, 2.0, 4.0]])
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    answers = (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)
    np.testing.assert_allclose(with_temperature(answers, 2.0), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_sigmoid_outputs_undoes_a_confidence_that_is_off(
    temperature: float,
) -> None:
    true = 1 / (1 + np.exp(-TRUE_LOGITS))
    labels = (RNG.random(true.shape) < true)[:, 0].astype(np.int64)
    # Two classes of which each row has one: the second sigmoid is the first one's complement.
    both = np.stack([1 - true[:, 0], true[:, 0]], axis=1).astype(np.float32)
    distorted = with_temperature(both, 1 / temperature, "sigmoid")
    assert fit_temperature(distorted, labels, "sigmoid") == pytest.approx(temperature, rel=0.05)


def test_a_few_rows_that_are_all_right_make_nothing_certain() -> None:
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    found = fit_temperature(answers, np.array([0, 1, 0]))
    assert with_temperature(answers, found).max() < 0.999


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_confidence_that_is_off(temperature: float) -> None:
    distorted = with_temperature(TRUE, 1 / temperature)
    found = fit_temperature(distorted, LABELS)
    assert found == pytest.approx(temperature, rel=0.05)
    after = expected_calibration_error(reliability(with_temperature(distorted, found), LABELS))
    assert after < 0.02


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_temperature_in_the_weights_scales_the_probabilities(output: str) -> None:
    network = Network.uniform((5, 8, 4), output=output)
    weights = initialise(network, np.random.default_rng(2))
    x = RNG.random((7, 5), dtype=np.float32)
    expected = with_temperature(forward(network, weights, x).astype(np.float32), 1.7, output)
    np.testing.assert_allclose(
        forward(network, apply_temperature(weights, 1.7), x), expected, atol=1e-6
    )
