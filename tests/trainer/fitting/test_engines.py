"""The parallel engine against its oracle, the sequential one, which adds up in another order."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlpserve_model import Network
from mlpserve_trainer import Recipe
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.engine import EngineFactory, smoothed_targets
from mlpserve_trainer.fitting.fit import fit
from mlpserve_trainer.fitting.parallel.engine import interleaved_engine
from mlpserve_trainer.fitting.sequential import SequentialEngine
from mlpserve_trainer.fitting.state import TrainingState

ROWS = 61
RECIPES = {
    "adam": Recipe(optimizer="adam", learning_rate=0.003, epochs=2, batch_size=16),
    "adamw": Recipe(optimizer="adamw", learning_rate=0.003, epochs=2, batch_size=16),
    "nesterov": Recipe(
        optimizer="nesterov", momentum=0.9, learning_rate=0.1, epochs=2, batch_size=16
    ),
    "sgd": Recipe(optimizer="sgd", momentum=0.9, learning_rate=0.1, epochs=2, batch_size=16),
}


@pytest.fixture(params=[1, 2], ids=["one shard", "two shards"], autouse=True)
def shards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network be cut into so many shards; these are too small to be cut otherwise."""
    if request.param == 2:
        monkeypatch.setattr("mlpserve_trainer.fitting.parallel.engine.MIN_PARALLEL_WORK", 0)


def examples() -> Examples:
    """Images of 6×6 pixels, one of which is never used and one in two images only."""
    rng = np.random.default_rng(5)
    inputs, labels = rng.integers(0, 256, (ROWS, 6, 6), dtype=np.uint8), rng.integers(0, 3, ROWS)
    inputs[:, 0, 0] = 0
    inputs[np.arange(ROWS) % 50 > 0, 5, 5] = 0
    return Examples(inputs, labels, 255)


def trained(engine: EngineFactory, network: Network, recipe: Recipe) -> TrainingState:
    rows = examples()
    *_, last = fit(network, recipe, rows, rows, seed=2, engine=engine)
    return last.state


def assert_same_training(network: Network, recipe: Recipe) -> None:
    ours = trained(interleaved_engine, network, recipe)
    expected = trained(SequentialEngine, network, recipe)
    np.testing.assert_allclose(ours.losses, expected.losses, rtol=1e-5)
    assert ours.learning_rates == expected.learning_rates
    for one, other in (
        (ours.weights, expected.weights),
        (ours.current, expected.current),
        (ours.chosen, expected.chosen),
        (ours.optimizer_state, expected.optimizer_state),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("hidden", [(), (8,), (9, 7)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 16, 1000])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", RECIPES)
def test_every_optimizer_takes_the_steps_of_the_textbook(
    optimizer: str, dropout: float, weight_decay: float, batch_size: int, hidden: tuple[int, ...]
) -> None:
    knobs = {"dropout": dropout, "weight_decay": weight_decay, "batch_size": batch_size}
    assert_same_training(Network((36, *hidden, 3)), RECIPES[optimizer].override(knobs))


@pytest.mark.parametrize(
    "knobs",
    [
        {"clip_norm": 0.1},
        {"averaging": 0.9},
        {"label_smoothing": 0.1},
        {"patience": 1, "epochs": 6},
        {"schedule": "one_cycle", "warmup": 0.2},
        {"shift": 1.0},
        {"rotation": 5.0, "elastic": 0.5, "dropout": 0.2, "batch_size": 17},
        {"loss": "mean_squared_error"},
    ],
    ids=str,
)
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu"])
def test_every_key_of_a_recipe_means_what_the_textbook_does(
    knobs: dict[str, Any], output: str, activation: str
) -> None:
    network = Network.uniform((36, 9, 7, 3), activation, output)
    assert_same_training(network, RECIPES["adam"].override(knobs))


def test_the_oracle_notices_another_rate() -> None:
    network, recipe = Network((36, 8, 3)), RECIPES["sgd"]
    ours = trained(interleaved_engine, network, recipe)
    other = trained(SequentialEngine, network, replace(recipe, learning_rate=0.101))
    assert np.abs(ours.weights - other.weights).max() > 1e-3


def test_smoothed_targets_sum_to_one_and_favour_the_class() -> None:
    targets = smoothed_targets(4, 0.1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[2], [0.025, 0.025, 0.925, 0.025], rtol=1e-6)


def test_without_smoothing_targets_are_one_hot() -> None:
    np.testing.assert_array_equal(smoothed_targets(3, 0.0), np.eye(3))
