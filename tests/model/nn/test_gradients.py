"""One check guards all the mathematics: gradients against central differences, in float64."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from mlpserve_model import Layer, Network, Weights, loss_and_gradients
from mlpserve_model.nn.activations import HIDDEN, OUTPUT, Activation, relu
from mlpserve_model.nn.losses import LOSSES

Float64 = NDArray[np.float64]
STEP = 1e-6
DEPTHS = {"no hidden layer": (5, 4), "one": (5, 6, 4), "two": (5, 6, 3, 4)}
# Identity outputs are no probabilities, and have no cross-entropy.
PAIRS = [
    pair for pair in itertools.product(OUTPUT, LOSSES) if pair != ("identity", "cross_entropy")
]
KINDS = [(hidden, *pair) for hidden in HIDDEN for pair in PAIRS]
OFFERED = [(*kind, depth) for kind in KINDS for depth in DEPTHS]


def _random_weights(network: Network, rng: np.random.Generator) -> Weights:
    return tuple(
        Layer(rng.normal(0, 0.7, shape), rng.normal(0, 0.7, shape[1]))
        for shape in network.layer_shapes
    )


def _targets(output: str, rows: int, classes: int, rng: np.random.Generator) -> Float64:
    """Smoothed one-hot rows for softmax; any of several classes for sigmoid."""
    if output == "softmax":
        return np.eye(classes)[rng.integers(0, classes, rows)] * 0.9 + 0.1 / classes
    return rng.integers(0, 2, (rows, classes)).astype(np.float64)


def _problem(hidden: str, output: str, depth: str) -> tuple[Network, Weights, Float64, Float64]:
    rng = np.random.default_rng(20)
    network = Network.uniform(DEPTHS[depth], hidden, output)
    targets = _targets(output, 7, network.classes, rng)
    return network, _random_weights(network, rng), rng.random((7, 5)), targets


def _central_differences(
    network: Network, weights: Weights, x: Float64, targets: Float64, loss: str
) -> Weights:
    def difference(array: Any, index: tuple[int, ...]) -> float:
        kept, losses = array[index], []
        for value in (kept + STEP, kept - STEP):
            array[index] = value
            losses.append(loss_and_gradients(network, weights, x, targets, loss)[0])
        array[index] = kept
        return (losses[0] - losses[1]) / (2 * STEP)

    def gradient(array: Any) -> Float64:
        found: Float64 = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            found[index] = difference(array, index)
        return found

    return tuple(Layer(gradient(layer.w), gradient(layer.b)) for layer in weights)


def _assert_gradients_agree(hidden: str, output: str, loss: str, depth: str) -> None:
    _assert_agree(*_problem(hidden, output, depth), loss)


def _assert_agree(
    network: Network, weights: Weights, x: Float64, targets: Float64, loss: str
) -> None:
    _, analytic = loss_and_gradients(network, weights, x, targets, loss)
    numeric = _central_differences(network, weights, x, targets, loss)
    for ours, measured in zip(analytic, numeric, strict=True):
        assert_allclose(ours.w, measured.w, rtol=1e-6, atol=1e-8)
        assert_allclose(ours.b, measured.b, rtol=1e-6, atol=1e-8)


def test_every_combination_offered_is_checked() -> None:
    assert len(OFFERED) == 8 * 5 * 3


@pytest.mark.parametrize(("hidden", "output", "loss", "depth"), OFFERED)
def test_gradients_agree_with_central_differences(
    hidden: str, output: str, loss: str, depth: str
) -> None:
    _assert_gradients_agree(hidden, output, loss, depth)


def test_gradients_agree_where_every_layer_has_an_activation_of_its_own() -> None:
    rng = np.random.default_rng(21)
    network = Network((5, *([4] * len(HIDDEN)), 3), (*HIDDEN, "softmax"))
    targets = _targets("softmax", 7, network.classes, rng)
    x = rng.normal(0, 2, (7, 5))
    _assert_agree(network, _random_weights(network, rng), x, targets, "cross_entropy")


def test_cross_entropy_of_identity_outputs_is_refused() -> None:
    network, weights, x, targets = _problem("relu", "identity", "one")
    with pytest.raises(ValueError, match="use softmax or sigmoid outputs"):
        loss_and_gradients(network, weights, x, targets, "cross_entropy")


@pytest.mark.parametrize("slip", ["derivative at the activation", "ReLU passes all", "bias mean"])
def test_the_check_catches_the_known_slips(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sigmoid_twice(grad: Any, a: Any) -> Any:
        again = 1 / (1 + np.exp(-a))
        return grad * again * (1 - again)

    if slip == "derivative at the activation":
        broken = Activation(HIDDEN["sigmoid"].forward, sigmoid_twice)
        monkeypatch.setitem(HIDDEN, "sigmoid", broken)
    elif slip == "ReLU passes all":
        monkeypatch.setitem(HIDDEN, "sigmoid", Activation(relu, lambda grad, a: grad))
    else:
        monkeypatch.setattr(
            "mlpserve_model.nn.network._layer_gradient",
            lambda below, delta: Layer(below.T @ delta, delta.mean(axis=0)),
        )
    with pytest.raises(AssertionError):
        _assert_gradients_agree("sigmoid", "softmax", "cross_entropy", "one")


@pytest.mark.parametrize(("hidden", "output", "loss"), KINDS)
def test_gradients_leave_their_arguments_as_they_were(hidden: str, output: str, loss: str) -> None:
    network, weights, x, targets = _problem(hidden, output, "two")
    arguments = [x, targets, *itertools.chain.from_iterable(weights)]
    before = [array.copy() for array in arguments]
    loss_and_gradients(network, weights, x, targets, loss)
    for array, copy in zip(arguments, before, strict=True):
        assert_array_equal(array, copy)


@pytest.mark.parametrize(("hidden", "output", "loss"), KINDS)
def test_gradients_of_float32_are_float32(hidden: str, output: str, loss: str) -> None:
    network, weights, x, targets = _problem(hidden, output, "two")
    narrow = tuple(Layer(*(a.astype(np.float32) for a in layer)) for layer in weights)
    _, gradients = loss_and_gradients(
        network, narrow, x.astype(np.float32), targets.astype(np.float32), loss
    )
    for layer, gradient in zip(narrow, gradients, strict=True):
        assert {gradient.w.dtype, gradient.b.dtype} == {np.dtype(np.float32)}
        assert (gradient.w.shape, gradient.b.shape) == (layer.w.shape, layer.b.shape)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    network, weights, x, targets = _problem("relu", "softmax", "one")
    with pytest.raises(ValueError, match="'hinge': use one of cross_entropy, mean_squared_error"):
        loss_and_gradients(network, weights, x, targets, "hinge")
