import gc
import tracemalloc
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from mlpserve_model import Network, initialise, loss_and_gradients
from mlpserve_trainer import Recipe, TrainingDiverged
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.split import Examples, split
from mlpserve_trainer.evaluation.scores import accuracy
from mlpserve_trainer.fitting.batch_loader import first_used, rarest_first
from mlpserve_trainer.fitting.fit import Epoch, batches, fit, smoothed_targets
from mlpserve_trainer.fitting.parallel.lockstep import side_by_side
from mlpserve_trainer.fitting.state import State

NETWORK = Network((16, 8, 3))
RECIPE = Recipe(batch_size=32, epochs=5, learning_rate=0.01)


def run(data: Dataset, recipe: Recipe, seed: int = 0) -> Epoch:
    return list(_fit(data, recipe, seed))[-1]


def _fit(data: Dataset, recipe: Recipe, seed: int = 0) -> Iterator[Epoch]:
    parts = split(data, recipe.validation_fraction)
    return fit(NETWORK, recipe, parts.training, parts.validation, seed)


def test_the_last_batch_is_as_small_as_it_comes() -> None:
    order = np.random.default_rng(1).permutation(10)
    cut = list(batches(order, 4))
    assert [len(rows) for rows in cut] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(cut), order)


def test_a_separable_problem_is_learnt(stripes: Dataset) -> None:
    epochs = list(_fit(stripes, RECIPE))
    assert epochs[-1].validation_accuracy == 1.0
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5]


def test_the_same_seed_gives_the_same_weights(stripes: Dataset) -> None:
    one, two = run(stripes, RECIPE, seed=3), run(stripes, RECIPE, seed=3)
    np.testing.assert_array_equal(one.weights[0].w, two.weights[0].w)


def test_another_seed_gives_other_weights(stripes: Dataset) -> None:
    one, two = run(stripes, RECIPE, seed=3), run(stripes, RECIPE, seed=4)
    assert not np.array_equal(one.weights[0].w, two.weights[0].w)


def test_the_global_random_state_is_neither_read_nor_changed(stripes: Dataset) -> None:
    np.random.seed(1)
    one, after = run(stripes, RECIPE), np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    np.testing.assert_array_equal(run(stripes, RECIPE).weights[0].w, one.weights[0].w)


def test_a_batch_of_everything_is_one_step_down_the_gradient(stripes: Dataset) -> None:
    recipe = Recipe(
        batch_size=1000, epochs=1, optimizer="sgd", schedule="constant", learning_rate=0.1
    )
    part = Examples(stripes.inputs, stripes.labels, 255)
    (epoch,) = fit(NETWORK, recipe, part, part, seed=5)
    before = initialise(NETWORK, np.random.default_rng(5))
    loss, gradients = loss_and_gradients(NETWORK, before, part.scaled(), np.eye(3)[part.labels])
    assert epoch.loss == pytest.approx(loss, rel=1e-5)
    for new, old, gradient in zip(epoch.weights, before, gradients, strict=True):
        np.testing.assert_allclose(new.w, old.w - 0.1 * gradient.w, atol=1e-6)
        np.testing.assert_allclose(new.b, old.b - 0.1 * gradient.b, atol=1e-6)


def test_the_loss_of_an_epoch_counts_rows_not_batches(stripes: Dataset) -> None:
    still = Recipe(batch_size=256, epochs=1, optimizer="sgd", learning_rate=1e-12)
    part = Examples(stripes.inputs, stripes.labels, 255)
    (epoch,) = fit(NETWORK, still, part, part, seed=5)
    weights = initialise(NETWORK, np.random.default_rng(5))
    loss, _ = loss_and_gradients(NETWORK, weights, part.scaled(), np.eye(3)[part.labels])
    assert epoch.loss == pytest.approx(loss, rel=1e-5)


def test_weights_are_float32_to_the_end(stripes: Dataset) -> None:
    last = run(stripes, RECIPE)
    assert {a.dtype for layer in last.weights for a in layer} == {np.dtype(np.float32)}


def test_a_rate_that_diverges_stops_with_advice(stripes: Dataset) -> None:
    recipe = Recipe(batch_size=32, epochs=50, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match=r"epoch \d+, step \d+; lower --learning-rate"):
        run(stripes, recipe)


def test_smoothed_targets_sum_to_one_and_favour_the_class() -> None:
    targets = smoothed_targets(4, 0.1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[2], [0.025, 0.025, 0.925, 0.025], rtol=1e-6)


def test_without_smoothing_targets_are_one_hot() -> None:
    np.testing.assert_array_equal(smoothed_targets(3, 0.0), np.eye(3))


def test_two_parts_of_a_network_give_what_the_whole_does(
    stripes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run(stripes, RECIPE)
    monkeypatch.setattr("mlpserve_trainer.fitting.fit.WORTH_SHARING", 0)
    together = run(stripes, RECIPE)
    parts = split(stripes, RECIPE.validation_fraction)
    rows = (parts.training, parts.validation)
    *_, in_turns = fit(NETWORK, RECIPE, *rows, seed=0, side_by_side=False)
    np.testing.assert_array_equal(in_turns.weights[0].w, together.weights[0].w)
    assert together.loss == pytest.approx(alone.loss, rel=1e-4)
    np.testing.assert_allclose(together.weights[0].w, alone.weights[0].w, atol=1e-3)


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
def test_two_processes_come_to_the_same_bits_as_one(
    stripes: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    knobs: dict[str, float],
    hidden: tuple[int, ...],
) -> None:
    monkeypatch.setattr("mlpserve_trainer.fitting.fit.WORTH_SHARING", 0)
    monkeypatch.setattr(
        "mlpserve_trainer.fitting.fit.Team.run", lambda _, works: side_by_side(works)
    )
    network, recipe = Network((16, *hidden, 3)), replace(RECIPE, epochs=3).override(knobs)
    rows = Examples(stripes.inputs[:97], stripes.labels[:97], 255)  # one in the last batch
    *_, together = fit(network, recipe, rows, rows, seed=2)
    *_, in_turns = fit(network, recipe, rows, rows, seed=2, side_by_side=False)
    ours, theirs = together.state, in_turns.state
    assert (ours.losses, ours.accuracies) == (theirs.losses, theirs.accuracies)
    for one, other in (
        (ours.weights, theirs.weights),
        (ours.memory, theirs.memory),
        (ours.chosen, theirs.chosen),
    ):
        np.testing.assert_array_equal(one, other)


def test_inputs_that_are_always_zero_change_nothing(
    stripes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = stripes.inputs.copy()
    inputs.reshape(len(inputs), -1)[:, [0, 5, 6]] = 0
    data = replace(stripes, inputs=inputs)
    left_out = run(data, replace(RECIPE, averaging=0.9))
    monkeypatch.setattr("mlpserve_trainer.fitting.fit._given", lambda *_: None)
    computed = run(data, replace(RECIPE, averaging=0.9))
    assert left_out.loss == pytest.approx(computed.loss, rel=1e-5)
    np.testing.assert_allclose(left_out.weights[0].w, computed.weights[0].w, atol=1e-4)
    start = State.fresh(NETWORK, RECIPE, 0).weights[:128].reshape(16, 8)
    np.testing.assert_array_equal(left_out.weights[0].w[[0, 5, 6]], start[[0, 5, 6]])


@pytest.mark.parametrize("sizes", [(16, 3), (16, 8, 3), (16, 8, 6, 3)])
@pytest.mark.parametrize("knobs", [{}, {"weight_decay": 0.01}, {"batch_size": 1}], ids=str)
def test_inputs_that_a_batch_does_not_use_are_spared_and_change_nothing(
    stripes: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    knobs: dict[str, float],
) -> None:
    monkeypatch.setattr("mlpserve_trainer.fitting.fit.WORTH_SHARING", 0)
    inputs = stripes.inputs.reshape(-1, 16).copy()
    for column, one_in in ((9, 2), (2, 40), (14, 70), (5, 1000)):
        inputs[np.arange(len(inputs)) % one_in > 0, column] = 0
    rows = Examples(inputs, stripes.labels, 255)
    network, recipe = Network(sizes), replace(RECIPE, epochs=2).override(knobs)
    *_, spared = fit(network, recipe, rows, rows, seed=1)
    monkeypatch.setattr("mlpserve_trainer.fitting.fit._given", lambda *_: None)
    *_, computed = fit(network, recipe, rows, rows, seed=1)
    assert spared.loss == pytest.approx(computed.loss, rel=1e-4)
    for one, other in zip(spared.weights, computed.weights, strict=True):
        np.testing.assert_allclose(one.w, other.w, atol=2e-3)


def test_rare_inputs_come_first_and_those_that_no_row_uses_not_at_all() -> None:
    rows = (np.arange(640)[:, None] % np.array([4, 1, 640, 64]) == 0).astype(np.uint8)
    rows[:, 2] = 0
    kept, whole = (rarest_first(rows, 32, with_unused=unused) for unused in (False, True))
    assert kept is not None
    assert whole is not None
    assert (kept.tolist(), whole.tolist()) == ([3, 0, 1], [2, 3, 0, 1])
    np.testing.assert_array_equal(
        first_used(rows[:66, kept]), [0, *[2, 2, 2, 1] * 15, 2, 2, 2, 0, 2]
    )
    assert rarest_first(rows[:, :2], 32, with_unused=False) is None  # every batch uses both


def test_weights_of_inputs_that_are_always_zero_decay_with_the_others(stripes: Dataset) -> None:
    inputs = stripes.inputs.copy()
    inputs.reshape(len(inputs), -1)[:, 5] = 0
    recipe = replace(RECIPE, optimizer="adamw", weight_decay=0.1)
    start = State.fresh(NETWORK, recipe, 0).weights[:128].reshape(16, 8)
    decayed = run(replace(stripes, inputs=inputs), recipe).weights[0].w
    assert (np.abs(decayed[5]) < np.abs(start[5])).all()


def test_divergence_of_two_parts_is_reported_as_well(
    stripes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_trainer.fitting.fit.WORTH_SHARING", 0)
    recipe = Recipe(batch_size=32, epochs=50, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match="lower --learning-rate"):
        run(stripes, recipe)


def test_a_training_that_goes_on_ends_as_if_never_interrupted(stripes: Dataset) -> None:
    recipe = replace(RECIPE, dropout=0.2, averaging=0.9, shift=1.0, patience=5)
    parts = split(stripes, recipe.validation_fraction)
    both = (parts.training, parts.validation)
    *_, whole = fit(NETWORK, recipe, *both, seed=3)
    first = next(fit(NETWORK, recipe, *both, seed=3)).state
    *_, resumed = fit(NETWORK, recipe, *both, seed=3, state=deepcopy(first))
    assert resumed.state.losses == whole.state.losses
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one.w, other.w)


def test_a_long_gradient_is_clipped(stripes: Dataset) -> None:
    recipe = Recipe(batch_size=1000, epochs=1, optimizer="sgd", schedule="constant", clip_norm=0.01)
    part = Examples(stripes.inputs, stripes.labels, 255)
    before = State.fresh(NETWORK, recipe, 5).weights
    (epoch,) = fit(NETWORK, replace(recipe, learning_rate=1.0), part, part, seed=5)
    assert np.linalg.norm(epoch.state.weights - before) == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_the_weights(stripes: Dataset) -> None:
    recipe = Recipe(batch_size=1000, epochs=3, averaging=0.75, schedule="constant")
    part = Examples(stripes.inputs, stripes.labels, 255)
    expected = State.fresh(NETWORK, recipe, 5).weights
    for epoch in fit(NETWORK, recipe, part, part, seed=5):
        expected = 0.75 * expected + 0.25 * epoch.state.weights
        np.testing.assert_allclose(epoch.state.current, expected, atol=1e-6)
        np.testing.assert_array_equal(epoch.weights[0].w, epoch.state.current[:128].reshape(16, 8))


def test_patience_ends_the_training_and_keeps_the_best_weights(stripes: Dataset) -> None:
    recipe = replace(RECIPE, epochs=50, patience=3)
    parts = split(stripes, recipe.validation_fraction)
    *_, last = fit(NETWORK, recipe, parts.training, parts.validation, seed=0)
    accuracies = last.state.accuracies
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == best + 4
    assert last.number < 50
    assert accuracy(NETWORK, last.weights, parts.validation) == max(accuracies)


def _held_by_training() -> int:
    """Bytes that our code has allocated and holds; what other threads of the run do is theirs."""
    ours = [tracemalloc.Filter(True, f"*mlpserve_{room}*") for room in ("trainer", "model")]
    traces = tracemalloc.take_snapshot().filter_traces(ours).traces
    return sum(trace.size for trace in traces)


def test_memory_stays_flat_over_epochs(stripes: Dataset) -> None:
    recipe = replace(RECIPE, epochs=30, shift=1.0, dropout=0.1, averaging=0.9)
    held = []
    tracemalloc.start()
    try:
        for _ in _fit(stripes, recipe):
            gc.collect()
            held.append(_held_by_training())
    finally:
        tracemalloc.stop()
    # Three numbers an epoch are kept on purpose, for the curves.
    assert held[-1] - held[5] < 10_000
