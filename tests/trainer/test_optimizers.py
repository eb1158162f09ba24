import math
from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from mlpserve_model import Layer, Weights
from mlpserve_model.types import Array
from mlpserve_trainer.optimizers import SCHEDULES, Adam, Sgd


def layers(rng: np.random.Generator, scale: float = 1.0) -> Weights:
    shapes = [(4, 3), (3, 2)]
    return tuple(
        Layer(rng.normal(0, scale, shape), rng.normal(0, scale, shape[1])) for shape in shapes
    )


def flat(weights: Weights) -> list[Array]:
    return [array for layer in weights for array in layer]


def copied(weights: Weights) -> Weights:
    return tuple(Layer(w.copy(), b.copy()) for w, b in weights)


def steps(scale: float = 1.0) -> Iterator[tuple[Weights, float]]:
    """Thirty gradients with learning rates that change."""
    rng = np.random.default_rng(4)
    for step in range(30):
        yield layers(rng, scale), 0.1 / (1 + step)


def test_sgd_agrees_with_scikit_learn() -> None:
    weights = layers(np.random.default_rng(3))
    theirs = flat(copied(weights))
    optimizer, reference = Sgd(weights), SGDOptimizer(theirs, momentum=0.0)
    for gradients, rate in steps():
        reference.learning_rate = rate
        reference.update_params(theirs, flat(copied(gradients)))
        optimizer.step(weights, gradients, rate)
    for ours, their in zip(flat(weights), theirs, strict=True):
        np.testing.assert_allclose(ours, their, rtol=1e-12)


def test_adam_agrees_with_scikit_learn() -> None:
    weights = layers(np.random.default_rng(3))
    theirs = flat(copied(weights))
    optimizer, reference = Adam(weights), AdamOptimizer(theirs)
    for gradients, rate in steps():
        reference.learning_rate_init = rate
        reference.update_params(theirs, flat(copied(gradients)))
        optimizer.step(weights, gradients, rate)
    for ours, their in zip(flat(weights), theirs, strict=True):
        # Their epsilon is not corrected for bias, ours is, as in the paper.
        np.testing.assert_allclose(ours, their, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_adam_follows_algorithm_1_of_its_paper_even_where_epsilon_counts(scale: float) -> None:
    weights = layers(np.random.default_rng(3))
    theta = flat(copied(weights))
    m = [np.zeros_like(a) for a in theta]
    v = [np.zeros_like(a) for a in theta]
    optimizer = Adam(weights)
    for t, (gradients, rate) in enumerate(steps(scale), start=1):
        for i, g in enumerate(flat(copied(gradients))):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            m_hat, v_hat = m[i] / (1 - 0.9**t), v[i] / (1 - 0.999**t)
            theta[i] = theta[i] - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
        optimizer.step(weights, gradients, rate)
    for ours, expected in zip(flat(weights), theta, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", [Sgd, Adam])
def test_weights_stay_float32(kind: type[Sgd] | type[Adam]) -> None:
    weights = tuple(
        Layer(w.astype(np.float32), b.astype(np.float32))
        for w, b in layers(np.random.default_rng(3))
    )
    kind(weights).step(weights, copied(weights), 0.1)
    assert {array.dtype for array in flat(weights)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("constant", (1, 1, 1)),
        ("linear", (1, 0.75, 0)),
        ("cosine", (1, (1 + math.sqrt(0.5)) / 2, 0)),
    ],
)
def test_a_schedule_goes_from_the_whole_rate_to_its_end(
    name: str, shares: tuple[float, ...]
) -> None:
    computed = [SCHEDULES[name](progress) for progress in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose(computed, shares, atol=1e-15)
