from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mlpserve_model import Network
from mlpserve_trainer import Recipe, TrainingDiverged
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.engine import EngineFactory
from mlpserve_trainer.fitting.fit import Epoch, fit
from mlpserve_trainer.fitting.parallel.engine import ParallelEngine, interleaved_engine
from mlpserve_trainer.fitting.parallel.lockstep import Steps, Task, run_forked
from mlpserve_trainer.fitting.parallel.used_inputs import UsedInputs
from mlpserve_trainer.fitting.state import TrainingState

NETWORK = Network((16, 8, 3))
RECIPE = Recipe(batch_size=32, epochs=5, learning_rate=0.01)
ENGINE = "mlpserve_trainer.fitting.parallel.engine"


@pytest.fixture
def sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks be cut that are too small to be worth it."""
    monkeypatch.setattr(f"{ENGINE}.MIN_PARALLEL_WORK", 0)


@pytest.fixture
def forked(sharded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shards always run in processes of their own, also where that is slower."""

    def run(self: object, tasks: Sequence[Task]) -> Steps:
        return run_forked(tasks)

    monkeypatch.setattr(f"{ENGINE}.Lockstep.run", run)


def rows_of(data: Dataset, count: int | None = None) -> Examples:
    return Examples(data.inputs[:count], data.labels[:count], 255)


def run(
    rows: Examples,
    recipe: Recipe = RECIPE,
    network: Network = NETWORK,
    engine: EngineFactory = ParallelEngine,
) -> Epoch:
    *_, last = fit(network, recipe, rows, rows, seed=2, engine=engine)
    return last


def compute_with_all_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def used_inputs(recipe: Recipe, examples: Examples, layers: int) -> UsedInputs:
        return UsedInputs(None, examples, np.zeros(len(examples), np.intp))

    monkeypatch.setattr(f"{ENGINE}.used_inputs", used_inputs)


@pytest.mark.parametrize("hidden", [(), (8,), (9, 7)], ids=str)
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"dropout": 0.3},
        {"clip_norm": 0.1},
        {"averaging": 0.9},
        {"weight_decay": 0.01, "optimizer": "adamw"},
        {"patience": 1},
        {"shift": 1.0},
        {"rotation": 5.0, "elastic": 0.5},
    ],
    ids=str,
)
@pytest.mark.usefixtures("forked")
def test_two_processes_compute_the_same_bits_as_one(
    stripes: Dataset, knobs: dict[str, float], hidden: tuple[int, ...]
) -> None:
    network, recipe = Network((16, *hidden, 3)), replace(RECIPE, epochs=3).override(knobs)
    rows = rows_of(stripes, 97)  # one row in the last batch
    ours = run(rows, recipe, network).state
    theirs = run(rows, recipe, network, interleaved_engine).state
    assert (ours.losses, ours.accuracies) == (theirs.losses, theirs.accuracies)
    for one, other in (
        (ours.weights, theirs.weights),
        (ours.optimizer_state, theirs.optimizer_state),
        (ours.chosen, theirs.chosen),
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("sharded")
def test_processes_are_used_where_they_are_faster_and_change_nothing(stripes: Dataset) -> None:
    rows = rows_of(stripes)
    either, interleaved = run(rows), run(rows, engine=interleaved_engine)
    np.testing.assert_array_equal(either.weights[0].w, interleaved.weights[0].w)


@pytest.mark.usefixtures("forked")
def test_divergence_in_two_processes_is_reported_as_well(stripes: Dataset) -> None:
    recipe = replace(RECIPE, epochs=50, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match="lower --learning-rate"):
        run(rows_of(stripes), recipe)


def test_inputs_that_are_always_zero_change_nothing(
    stripes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = stripes.inputs.copy()
    inputs.reshape(len(inputs), -1)[:, [0, 5, 6]] = 0
    rows, recipe = Examples(inputs, stripes.labels, 255), replace(RECIPE, averaging=0.9)
    left_out = run(rows, recipe)
    compute_with_all_inputs(monkeypatch)
    computed = run(rows, recipe)
    assert left_out.loss == pytest.approx(computed.loss, rel=1e-5)
    np.testing.assert_allclose(left_out.weights[0].w, computed.weights[0].w, atol=1e-4)
    start = TrainingState.initial(NETWORK, RECIPE, 2).weights[:128].reshape(16, 8)
    np.testing.assert_array_equal(left_out.weights[0].w[[0, 5, 6]], start[[0, 5, 6]])


@pytest.mark.parametrize("sizes", [(16, 3), (16, 8, 3), (16, 8, 6, 3)])
@pytest.mark.parametrize("knobs", [{}, {"weight_decay": 0.01}, {"batch_size": 1}], ids=str)
@pytest.mark.usefixtures("sharded")
def test_inputs_that_a_batch_does_not_use_are_skipped_and_change_nothing(
    stripes: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    knobs: dict[str, float],
) -> None:
    inputs = stripes.inputs.reshape(-1, 16).copy()
    for column, one_in in ((9, 2), (2, 40), (14, 70), (5, 1000)):
        inputs[np.arange(len(inputs)) % one_in > 0, column] = 0
    rows = Examples(inputs, stripes.labels, 255)
    network, recipe = Network(sizes), replace(RECIPE, epochs=2).override(knobs)
    skipped = run(rows, recipe, network)
    compute_with_all_inputs(monkeypatch)
    computed = run(rows, recipe, network)
    assert skipped.loss == pytest.approx(computed.loss, rel=1e-4)
    for one, other in zip(skipped.weights, computed.weights, strict=True):
        np.testing.assert_allclose(one.w, other.w, atol=2e-3)


def test_weights_of_inputs_that_are_always_zero_decay_with_the_others(stripes: Dataset) -> None:
    inputs = stripes.inputs.copy()
    inputs.reshape(len(inputs), -1)[:, 5] = 0
    recipe = replace(RECIPE, optimizer="adamw", weight_decay=0.1)
    start = TrainingState.initial(NETWORK, recipe, 2).weights[:128].reshape(16, 8)
    decayed = run(Examples(inputs, stripes.labels, 255), recipe).weights[0].w
    assert (np.abs(decayed[5]) < np.abs(start[5])).all()
