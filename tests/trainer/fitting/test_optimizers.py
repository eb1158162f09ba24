from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_trainer import Recipe
from mlpserve_trainer.fitting.optimizers import OPTIMIZERS

Doubles = npt.NDArray[np.float64]
RECIPE = Recipe(momentum=0.9, weight_decay=0.1)
RATES = (0.1, 0.05, 0.2, 0.01)


def weights() -> Doubles:
    return np.random.default_rng(3).normal(size=20)


def gradients(scale: float = 1.0) -> Iterator[Doubles]:
    rng = np.random.default_rng(4)
    for _ in RATES:
        yield scale * rng.normal(size=20)


def ours(name: str, recipe: Recipe = RECIPE, scale: float = 1.0) -> Doubles:
    w, optimizer = weights(), OPTIMIZERS[name]
    state = np.zeros((optimizer.state_vectors, 20))
    for step, (g, rate) in enumerate(zip(gradients(scale), RATES, strict=True), start=1):
        optimizer.update(w, g, state, step, rate, recipe)
    return w


def textbook_sgd(scale: float = 1.0) -> Doubles:
    w, v = weights(), np.zeros(20)
    for g, rate in zip(gradients(scale), RATES, strict=True):
        v = 0.9 * v + g + 0.1 * w
        w = w - rate * v
    return w


def textbook_nesterov(scale: float = 1.0) -> Doubles:
    w, v = weights(), np.zeros(20)
    for g, rate in zip(gradients(scale), RATES, strict=True):
        g = g + 0.1 * w
        v = 0.9 * v + g
        w = w - rate * (g + 0.9 * v)
    return w


def textbook_adam(scale: float = 1.0, beside: float = 0.0, inside: float = 0.1) -> Doubles:
    w, m, v = weights(), np.zeros(20), np.zeros(20)
    for t, (g, rate) in enumerate(zip(gradients(scale), RATES, strict=True), start=1):
        g = g + inside * w
        w = w - rate * beside * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        w = w - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
    return w


def textbook_adamw(scale: float = 1.0) -> Doubles:
    return textbook_adam(scale, beside=0.1, inside=0.0)


@pytest.mark.parametrize("scale", [1.0, 1e-8], ids=["plain", "where epsilon counts"])
@pytest.mark.parametrize(
    ("name", "textbook"),
    [
        ("sgd", textbook_sgd),
        ("nesterov", textbook_nesterov),
        ("adam", textbook_adam),
        ("adamw", textbook_adamw),
    ],
)
def test_an_optimizer_takes_the_steps_of_its_paper(
    name: str, textbook: Callable[[float], Doubles], scale: float
) -> None:
    np.testing.assert_allclose(ours(name, scale=scale), textbook(scale), rtol=1e-9)


def test_without_momentum_sgd_and_nesterov_are_plain_descent() -> None:
    expected = weights()
    for g, rate in zip(gradients(), RATES, strict=True):
        expected -= rate * g
    np.testing.assert_allclose(ours("sgd", Recipe()), expected)
    np.testing.assert_allclose(ours("nesterov", Recipe()), expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_parts_of_a_vector_can_be_updated_one_by_one(name: str) -> None:
    whole, parts, optimizer = weights(), weights(), OPTIMIZERS[name]
    one, other = np.zeros((optimizer.state_vectors, 20)), np.zeros((optimizer.state_vectors, 20))
    for step, g in enumerate(gradients(), start=1):
        for part in (slice(0, 7), slice(7, 20)):
            update = (parts[part], g[part].copy(), other[:, part])
            optimizer.update(*update, step, 0.1, RECIPE)
        optimizer.update(whole, g, one, step, 0.1, RECIPE)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_stays_float32(name: str) -> None:
    w, optimizer = weights().astype(np.float32), OPTIMIZERS[name]
    before, state = w.copy(), np.zeros((optimizer.state_vectors, 20), np.float32)
    optimizer.update(w, np.ones(20, np.float32), state, 1, 0.1, RECIPE)
    assert {w.dtype, state.dtype} == {np.dtype(np.float32)}
    assert (w != before).all()
