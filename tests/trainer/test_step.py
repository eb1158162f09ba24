import itertools

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_model import Network, initialise, loss_and_gradients
from mlpserve_trainer import Recipe
from mlpserve_trainer.step import Shard, layers_of

RNG = np.random.default_rng(1)
INPUTS = RNG.random((30, 12), dtype=np.float32)
TARGETS = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 30)]
EVERY_KIND = list(
    itertools.product(
        ("relu", "sigmoid", "tanh"),
        ("softmax", "sigmoid"),
        ("cross_entropy", "mean_squared_error"),
    )
)


def vector_of(network: Network) -> npt.NDArray[np.float32]:
    layers = initialise(network, np.random.default_rng(2))
    return np.concatenate([array.ravel() for layer in layers for array in layer])


def run(shard: Shard, rows: slice, batch_rows: int = 30) -> float:
    shard.inputs[: len(INPUTS[rows])] = INPUTS[rows]
    return shard.run(TARGETS[rows], batch_rows, np.random.default_rng(3))


def test_layers_are_views_of_the_vector_in_the_order_of_the_file() -> None:
    network = Network((3, 2, 2))
    vector = np.arange(14, dtype=np.float32)
    (w1, b1), (w2, b2) = layers_of(network, vector)
    np.testing.assert_array_equal(w1, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(b1, [6, 7])
    np.testing.assert_array_equal(w2, [[8, 9], [10, 11]])
    b2[1] = 99
    assert vector[13] == 99


@pytest.mark.parametrize(("hidden", "output", "loss"), EVERY_KIND)
def test_the_fast_step_computes_what_the_textbook_one_does(
    hidden: str, output: str, loss: str
) -> None:
    network = Network((12, 9, 7, 4), hidden, output)
    weights = layers_of(network, vector_of(network))
    shard = Shard(network, weights, Recipe(loss=loss), rows=40)
    expected_loss, expected = loss_and_gradients(network, weights, INPUTS, TARGETS, loss)
    assert run(shard, slice(None)) / 30 == pytest.approx(expected_loss, rel=1e-5)
    for ours, theirs in zip(layers_of(network, shard.gradient), expected, strict=True):
        np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.b, theirs.b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_the_parts_of_a_batch_add_up(loss: str) -> None:
    network = Network((12, 9, 4))
    shard = Shard(network, layers_of(network, vector_of(network)), Recipe(loss=loss), rows=30)
    loss_of_all, gradient_of_all = run(shard, slice(None)), shard.gradient.copy()
    losses, gradients = [], []
    for rows in (slice(0, 11), slice(11, 30), slice(30, 30)):
        losses.append(run(shard, rows))
        gradients.append(shard.gradient.copy())
    assert sum(losses) == pytest.approx(loss_of_all, rel=1e-5)
    np.testing.assert_allclose(np.sum(gradients, axis=0), gradient_of_all, atol=1e-6)


@pytest.mark.parametrize("hidden", ["relu", "tanh"])
def test_the_gradient_with_dropout_is_that_of_the_thinned_network(hidden: str) -> None:
    network = Network((12, 9, 4), hidden)
    vector = vector_of(network)
    shard = Shard(network, layers_of(network, vector), Recipe(dropout=0.4), rows=30)
    run(shard, slice(None))
    gradient = shard.gradient.copy()
    for index in (5, 100, len(vector) - 20, len(vector) - 2):
        losses = []
        for change in (1e-2, -2e-2):
            vector[index] += change
            losses.append(run(shard, slice(None)) / 30)
        vector[index] += 1e-2
        slope = (losses[0] - losses[1]) / 2e-2
        assert gradient[index] == pytest.approx(slope, rel=0.05, abs=2e-4)


def test_dropout_silences_its_share_and_strengthens_the_rest() -> None:
    network = Network((1, 20_000, 2))
    vector = np.ones(network.parameters, np.float32)
    shard = Shard(network, layers_of(network, vector), Recipe(dropout=0.25), rows=1)
    shard.inputs[:] = 1
    shard.run(np.eye(2, dtype=np.float32)[:1], 1, np.random.default_rng(4))
    # Both classes are equally likely here, so the gradient is half of what each unit gave: 2.
    given = layers_of(network, shard.gradient)[1].w[:, 1] * 2
    assert np.unique(given) == pytest.approx([0, 2 / 0.75])
    assert (given > 0).mean() == pytest.approx(0.75, abs=0.02)
