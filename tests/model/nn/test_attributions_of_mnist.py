"""What attributions must show on the real MNIST, for trained networks of every activation."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve_model.nn.activations import HIDDEN
from mlpserve_model.nn.attributions import Attributions, attributions
from mlpserve_model.nn.network import (
    Layer,
    Network,
    Weights,
    initialise,
    loss_and_gradients,
    pre_activation,
)
from mlpserve_model.nn.types import Array
from tests.support.mnist import load_mnist, needs_mnist

pytestmark = [pytest.mark.slow, needs_mnist]

ZEROS = np.zeros(784, np.float32)
STEPS = 2000


class Pixels(NamedTuple):
    training: NDArray[np.float32]
    targets: NDArray[np.float32]
    test: NDArray[np.float32]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    data = load_mnist()

    def scaled(images: NDArray[np.generic]) -> NDArray[np.float32]:
        return images.reshape(len(images), 784).astype(np.float32) / np.float32(255)

    targets = np.eye(10, dtype=np.float32)[data.training.labels]
    return Pixels(scaled(data.training.inputs), targets, scaled(data.holdout.inputs))


_trained: dict[Network, Weights] = {}


def train(network: Network, pixels: Pixels) -> Weights:
    """Two passes of gradient descent, once for each network: about 95 % of the images."""
    if network in _trained:
        return _trained[network]
    rng = np.random.default_rng(0)
    weights = initialise(network, rng, "xavier")
    for rows in np.array_split(np.tile(rng.permutation(len(pixels.training)), 2), 900):
        _, gradients = loss_and_gradients(
            network, weights, pixels.training[rows], pixels.targets[rows]
        )
        weights = tuple(
            Layer(layer.w - np.float32(0.3) * g.w, layer.b - np.float32(0.3) * g.b)
            for layer, g in zip(weights, gradients, strict=True)
        )
    _trained[network] = weights
    return weights


def logits(network: Network, weights: Weights, x: Array) -> Array:
    for layer in weights[:-1]:
        x = HIDDEN[network.activations[0]].forward(pre_activation(layer, x))
    return pre_activation(weights[-1], x)


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("sizes", [(784, 128, 10), (784, 128, 64, 10)])
def test_they_are_complete_for_all_test_images(
    sizes: tuple[int, ...], activation: str, pixels: Pixels
) -> None:
    network = Network.uniform(sizes, activation)

    found = attributions(network, train(network, pixels), pixels.test, ZEROS)

    difference = found.scores.astype(float) - found.baseline_scores
    errors = np.abs(found.values.sum(axis=1, dtype=float) - difference) / np.abs(found.scores)
    print(f"\n{sizes} {activation}: at most {errors.max():.1e} of the score")
    assert len(errors) == 10_000
    assert errors.max() <= 1e-4


@pytest.mark.parametrize("activation", HIDDEN)
def test_with_one_hidden_layer_they_are_integrated_gradients(
    activation: str, pixels: Pixels
) -> None:
    network = Network.uniform((784, 128, 10), activation)
    weights = train(network, pixels)
    x = pixels.test[:200].astype(np.float64)
    found = attributions(network, weights, x, ZEROS)

    hidden, last = weights
    z0 = pre_activation(hidden, ZEROS[np.newaxis].astype(np.float64))
    way, slopes = pre_activation(hidden, x) - z0, np.zeros((len(x), 128))
    for step in range(STEPS):  # along the straight line from the baseline, at midpoints
        z = z0 + way * (step + 0.5) / STEPS
        a = HIDDEN[activation].forward(z)
        slopes += HIDDEN[activation].gradient(np.ones_like(a), z, a) / STEPS
    expected = x * ((slopes * last.w.T[found.labels]) @ hidden.w.T)

    largest = np.abs(expected).max()
    error = np.abs(found.values - expected).max()
    print(f"\n{activation}: {error:.1e} apart, of values of up to {largest:.2f}")
    assert error <= 2 / STEPS * largest  # a kink of ReLU is located to half a step, at each unit


@pytest.mark.parametrize("activation", HIDDEN)
def test_a_network_with_random_weights_has_other_maps(activation: str, pixels: Pixels) -> None:
    network = Network.uniform((784, 128, 10), activation)
    random, x = initialise(network, np.random.default_rng(1)), pixels.test[:1000]
    trained = attributions(network, train(network, pixels), x, ZEROS)

    correlations = np.empty(len(x))
    for label in range(10):
        rows = trained.labels == label
        other = attributions(network, random, x[rows], ZEROS, label)
        correlations[rows] = rank_correlations(trained.values[rows], other.values)

    print(f"\n{activation}: mean rank correlation {correlations.mean():.3f}")
    assert abs(correlations.mean()) < 0.2


@pytest.mark.parametrize("activation", HIDDEN)
def test_the_pixels_that_count_most_lower_the_logit_most(activation: str, pixels: Pixels) -> None:
    network = Network.uniform((784, 128, 10), activation)
    weights, x = train(network, pixels), pixels.test
    found = attributions(network, weights, x, ZEROS)
    rng = np.random.default_rng(0)

    by_attribution = score_without(network, weights, x, found, -found.values)
    by_chance = [
        # Among the pixels that are drawn on: blank ones change nothing.
        score_without(network, weights, x, found, rng.random(x.shape, np.float32) - (x > 0))
        for _ in range(10)
    ]

    share = (by_attribution < np.min(by_chance, axis=0)).mean()
    print(f"\n{activation}: lower than every one of ten random draws on {share:.2%} of images")
    assert share >= 0.95


def score_without(
    network: Network, weights: Weights, x: Array, found: Attributions, order: Array
) -> Array:
    """The logits of the explained classes without a tenth of the pixels, the first in order."""
    removed = np.argpartition(order, 78, axis=1)[:, :78]
    left = x.copy()
    np.put_along_axis(left, removed, 0, axis=1)
    return logits(network, weights, left)[np.arange(len(x)), found.labels]


def rank_correlations(a: Array, b: Array) -> Array:
    """Spearman's, for each row."""
    pairs = zip(a, b, strict=True)
    return np.array([np.corrcoef(ranks(one), ranks(other))[0, 1] for one, other in pairs])


def ranks(values: Array) -> Array:
    """Ranks in ascending order, equal values at the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: Array = np.cumsum(counts).astype(float)
    return (last - (counts - 1) / 2)[inverse]
