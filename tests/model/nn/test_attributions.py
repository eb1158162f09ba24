"""Attributions are complete, agree with what they approximate, and depend on the weights."""

import numpy as np
import pytest

from mlpserve_model.nn.activations import HIDDEN
from mlpserve_model.nn.attributions import attributions
from mlpserve_model.nn.network import Layer, Network, Weights, initialise, pre_activation
from mlpserve_model.nn.types import Array

DEPTHS = [(6, 4), (6, 5, 4), (6, 8, 7, 4)]


def drawn(network: Network, seed: int = 0) -> Weights:
    """Weights with biases, in float64: the formulas are tested, not their rounding."""
    rng = np.random.default_rng(seed)
    return tuple(
        Layer(w.astype(np.float64), rng.normal(size=b.shape))
        for w, b in initialise(network, rng, "xavier")
    )


def logit_gradient(network: Network, weights: Weights, x: Array, label: int) -> Array:
    """The gradient of a logit with respect to one input row, by central differences."""

    def logit(row: Array) -> float:
        a = row[np.newaxis]
        for layer in weights[:-1]:
            a = HIDDEN[network.activations[0]].forward(pre_activation(layer, a))
        return float(pre_activation(weights[-1], a)[0, label])

    steps = np.eye(len(x)) * 1e-6
    return np.array([(logit(x + step) - logit(x - step)) / 2e-6 for step in steps])


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("sizes", DEPTHS)
def test_the_attributions_of_a_row_sum_to_the_difference_of_the_logits(
    sizes: tuple[int, ...], activation: str
) -> None:
    network = Network.uniform(sizes, activation)
    x = np.random.default_rng(1).random((50, 6))

    found = attributions(network, drawn(network), x, np.full(6, 0.3))

    np.testing.assert_allclose(
        found.values.sum(axis=1), found.scores - found.baseline_scores, atol=1e-12
    )


@pytest.mark.parametrize("activation", HIDDEN)
def test_with_one_hidden_layer_they_are_integrated_gradients(activation: str) -> None:
    network = Network.uniform((6, 5, 4), activation)
    weights, x = drawn(network), np.random.default_rng(2).random(6)
    baseline, steps = np.zeros(6), 400

    path = [baseline + (x - baseline) * (i + 0.5) / steps for i in range(steps)]
    mean = np.mean([logit_gradient(network, weights, point, 2) for point in path], axis=0)

    found = attributions(network, weights, x[np.newaxis], baseline, label=2)
    np.testing.assert_allclose(found.values[0], (x - baseline) * mean, atol=1e-3)


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("sizes", DEPTHS)
def test_close_to_the_baseline_they_are_the_gradient_times_the_difference(
    sizes: tuple[int, ...], activation: str
) -> None:
    network = Network.uniform(sizes, activation)
    weights, baseline = drawn(network), np.random.default_rng(3).random(6)
    for difference in (1e-4, 1e-9):  # on both sides of where the derivative takes over
        x = baseline + difference

        found = attributions(network, weights, x[np.newaxis], baseline, label=1)

        gradient = logit_gradient(network, weights, baseline, 1)
        np.testing.assert_allclose(found.values[0] / difference, gradient, atol=1e-3)


def test_a_row_equal_to_its_baseline_owes_nothing_to_any_input() -> None:
    network = Network((6, 5, 4))
    x = np.random.default_rng(4).random((3, 6))

    found = attributions(network, drawn(network), x, x)

    assert not found.values.any()
    np.testing.assert_array_equal(found.scores, found.baseline_scores)


def test_layers_with_activations_of_their_own_are_complete_for_any_real_inputs() -> None:
    network = Network((6, 8, 7, 5, 4), ("gelu", "leaky_relu", "silu", "identity"))
    x = np.random.default_rng(9).normal(0, 30, (50, 6))

    found = attributions(network, drawn(network), x, np.full(6, -2.0))

    difference = found.scores - found.baseline_scores
    np.testing.assert_allclose(found.values.sum(axis=1), difference, rtol=1e-9, atol=1e-9)


def test_without_a_label_each_row_explains_its_own_prediction() -> None:
    network = Network((6, 5, 4))
    weights, x = drawn(network), np.random.default_rng(5).normal(size=(40, 6))

    found = attributions(network, weights, x, np.zeros(6))

    assert len(set(found.labels.tolist())) > 1
    for label in range(4):
        rows = found.labels == label
        asked = attributions(network, weights, x[rows], np.zeros(6), label)
        np.testing.assert_allclose(asked.values, found.values[rows], rtol=1e-12)


def test_the_hidden_activations_come_along() -> None:
    network = Network((6, 8, 7, 4))

    found = attributions(network, drawn(network), np.ones((2, 6)), np.zeros(6))

    assert [a.shape for a in found.activations] == [(2, 8), (2, 7)]


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_not_a_class_is_refused(label: int) -> None:
    network = Network((6, 4))

    with pytest.raises(ValueError, match=f"label {label}, expected 0 to 3"):
        attributions(network, drawn(network), np.ones((1, 6)), np.zeros(6), label)


def test_float32_is_kept_and_complete_to_its_precision() -> None:
    network = Network((784, 128, 10))
    weights = initialise(network, np.random.default_rng(6))
    x = np.random.default_rng(7).random((200, 784), dtype=np.float32)

    found = attributions(network, weights, x, np.zeros(784, np.float32))

    assert found.values.dtype == np.float32
    error = np.abs(found.values.sum(axis=1) - (found.scores - found.baseline_scores))
    assert (error <= 1e-4 * np.abs(found.scores)).all()
