"""The forward pass against an independent implementation with the same weights."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from mlpserve_model import Layer, Network, Weights, forward, initialise, scale_pixels
from mlpserve_model.nn.activations import HIDDEN, OUTPUT

# What scikit-learn calls our activations.
SKLEARN = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh", "identity": "identity"}


def _fitted(hidden: str, sizes: tuple[int, ...], x: Any, y: Any) -> Any:
    """A scikit-learn network that has taken a few steps: any weights will do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return MLPClassifier(sizes, activation=SKLEARN[hidden], max_iter=5, random_state=0).fit(
            x, y
        )


def _weights_of(model: Any) -> Weights:
    return tuple(Layer(w, b) for w, b in zip(model.coefs_, model.intercepts_, strict=True))


@pytest.fixture
def x() -> NDArray[np.float64]:
    return np.random.default_rng(3).random((60, 8))


@pytest.mark.parametrize("hidden", SKLEARN)
@pytest.mark.parametrize("sizes", [(), (7,), (7, 5)])
def test_softmax_probabilities_are_those_of_scikit_learn(
    hidden: str, sizes: tuple[int, ...], x: NDArray[np.float64]
) -> None:
    model = _fitted(hidden, sizes, x, np.arange(60) % 4)
    network = Network.uniform((8, *sizes, 4), hidden, "softmax")
    assert_allclose(forward(network, _weights_of(model), x), model.predict_proba(x), rtol=1e-12)


@pytest.mark.parametrize("hidden", SKLEARN)
def test_one_sigmoid_output_is_scikit_learns_binary_probability(
    hidden: str, x: NDArray[np.float64]
) -> None:
    model = _fitted(hidden, (7,), x, np.arange(60) % 2)
    ours = forward(Network.uniform((8, 7, 1), hidden, "sigmoid"), _weights_of(model), x)
    assert_allclose(ours[:, 0], model.predict_proba(x)[:, 1], rtol=1e-12)


@pytest.mark.parametrize("hidden", SKLEARN)
def test_several_sigmoid_outputs_are_scikit_learns_multilabel_probabilities(
    hidden: str, x: NDArray[np.float64]
) -> None:
    labels = np.random.default_rng(4).integers(0, 2, (60, 3))
    model = _fitted(hidden, (7, 6), x, labels)
    ours = forward(Network.uniform((8, 7, 6, 3), hidden, "sigmoid"), _weights_of(model), x)
    assert_allclose(ours, model.predict_proba(x), rtol=1e-12)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_huge_logits_give_probabilities_without_a_warning(
    output: str, kind: type[np.floating[Any]], size: float
) -> None:
    logits = np.array([[size, -size, 0], [-size, size, size], [0, 0, -size]], kind)
    probabilities = OUTPUT[output].forward(logits)
    assert probabilities.dtype == kind
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if output == "softmax":
        assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
        assert_allclose(probabilities[1], [0, 0.5, 0.5], atol=1e-30)


def test_softmax_does_not_change_when_all_logits_rise_alike() -> None:
    logits = np.array([[1.0, 2.0, 3.0]])
    assert_allclose(OUTPUT["softmax"].forward(logits), OUTPUT["softmax"].forward(logits + 1000))


@pytest.mark.parametrize("name", HIDDEN | OUTPUT)
def test_activations_leave_their_arguments_as_they_were(name: str) -> None:
    activation = (HIDDEN | OUTPUT)[name]
    z, grad = np.array([[-2.0, 0.0, 3.0]]), np.array([[1.0, -1.0, 2.0]])
    a = activation.forward(z)
    kept = a.copy()
    activation.gradient(grad, z, a)
    assert_array_equal(z, [[-2.0, 0.0, 3.0]])
    assert_array_equal(grad, [[1.0, -1.0, 2.0]])
    assert_array_equal(a, kept)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("output", OUTPUT)
def test_forward_changes_nothing_and_keeps_float32(hidden: str, output: str) -> None:
    network = Network.uniform((4, 6, 5, 3), hidden, output)
    weights = initialise(network, np.random.default_rng(0))
    for layer in weights:
        layer.w.flags.writeable = layer.b.flags.writeable = False
    x = np.random.default_rng(1).random((9, 4), dtype=np.float32)
    x.flags.writeable = False
    probabilities = forward(network, weights, x)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (9, 3)


def test_a_row_has_the_same_probabilities_alone_and_in_a_batch() -> None:
    network = Network((4, 6, 3))
    weights = initialise(network, np.random.default_rng(0))
    x = np.random.default_rng(1).random((50, 4), dtype=np.float32)
    alone = np.concatenate([forward(network, weights, row[np.newaxis]) for row in x])
    assert_allclose(forward(network, weights, x), alone, atol=1e-6)


def test_he_draws_normally_with_the_variance_of_two_over_inputs() -> None:
    (layer,) = initialise(Network((800, 500)), np.random.default_rng(0), "he")
    assert_allclose(layer.w.mean(), 0, atol=3e-4)
    assert_allclose(layer.w.std(), math.sqrt(2 / 800), rtol=0.01)
    assert np.abs(layer.w).max() > 4 * layer.w.std()  # no uniform distribution


def test_xavier_draws_uniformly_within_its_limit() -> None:
    (layer,) = initialise(Network((800, 500)), np.random.default_rng(0), "xavier")
    limit = math.sqrt(6 / 1300)
    assert np.abs(layer.w).max() <= limit
    assert_allclose(layer.w.std(), limit / math.sqrt(3), rtol=0.01)


@pytest.mark.parametrize("scheme", ["he", "xavier"])
def test_initial_weights_are_float32_of_the_networks_shapes_and_biases_zero(scheme: str) -> None:
    network = Network((4, 6, 5, 3))
    weights = initialise(network, np.random.default_rng(0), scheme)
    assert [layer.w.shape for layer in weights] == [(4, 6), (6, 5), (5, 3)]
    assert [layer.b.shape for layer in weights] == [(6,), (5,), (3,)]
    assert {array.dtype for layer in weights for array in layer} == {np.dtype(np.float32)}
    assert not any(layer.b.any() for layer in weights)


def test_one_seed_gives_one_set_of_weights_and_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]["pos"]
    one, same, other = (
        initialise(Network((4, 3)), np.random.default_rng(seed))[0].w for seed in (5, 5, 6)
    )
    assert_array_equal(one, same)
    assert (one != other).any()
    after = np.random.get_state(legacy=False)["state"]["pos"]
    assert after == before


def test_an_unknown_initialisation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'zeros': use one of he, xavier"):
        initialise(Network((4, 3)), np.random.default_rng(0), "zeros")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,),), "two or more sizes"),
        (((4, 0, 3),), "sizes >= 1"),
        (((4, 2, 3), ("swish", "softmax")), "hidden activation 'swish': use one of relu, sigmoid"),
        (((4, 3), ("relu",)), "output activation 'relu': use one of softmax, sigmoid, identity"),
        (((4, 2, 3), ("softmax",)), "1 activations for 2 layers"),
        (((4, 3), ("relu", "softmax")), "2 activations for 1 layers"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(*arguments)


def test_a_network_without_activations_has_relu_inside_and_softmax_at_the_output() -> None:
    assert Network((4, 6, 5, 3)).activations == ("relu", "relu", "softmax")
    assert Network((4, 6, 5, 3)) == Network.uniform((4, 6, 5, 3), "relu", "softmax")
    assert Network((4, 3)).activations == ("softmax",)


def test_each_layer_computes_its_own_activation() -> None:
    network = Network((4, 6, 5, 3), ("tanh", "elu", "identity"))
    weights = initialise(network, np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(9, 4))
    a = HIDDEN["elu"].forward(np.tanh(x @ weights[0].w) @ weights[1].w)
    assert_allclose(forward(network, weights, x), a @ weights[2].w, rtol=1e-12)


def test_a_network_counts_its_parameters() -> None:
    network = Network((784, 128, 10))
    assert network.parameters == 784 * 128 + 128 + 128 * 10 + 10
    assert (network.inputs, network.classes) == (784, 10)


@pytest.mark.parametrize("maximum", [16.0, 255.0])
def test_scaled_pixels_are_float32_from_zero_to_one(maximum: float) -> None:
    pixels = np.arange(int(maximum) + 1, dtype=np.uint8)
    scaled = scale_pixels(pixels, maximum)
    assert scaled.dtype == np.float32
    assert_allclose(scaled, pixels / maximum, rtol=1e-6)
    assert (scaled[0], scaled[-1]) == (0, 1)
