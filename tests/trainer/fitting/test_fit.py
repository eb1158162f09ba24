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
from mlpserve_trainer.fitting.fit import Epoch, fit
from mlpserve_trainer.fitting.state import TrainingState

NETWORK = Network((16, 8, 3))
RECIPE = Recipe(batch_size=32, epochs=5, learning_rate=0.01)


def run(data: Dataset, recipe: Recipe, seed: int = 0) -> Epoch:
    return list(_fit(data, recipe, seed))[-1]


def _fit(data: Dataset, recipe: Recipe, seed: int = 0) -> Iterator[Epoch]:
    parts = split(data, recipe.validation_fraction)
    return fit(NETWORK, recipe, parts.training, parts.validation, seed)


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
    before = TrainingState.initial(NETWORK, recipe, 5).weights
    (epoch,) = fit(NETWORK, replace(recipe, learning_rate=1.0), part, part, seed=5)
    assert np.linalg.norm(epoch.state.weights - before) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("min_steps", "steps"), [(0, 30), (30, 30), (31, 60), (1000, 1020)])
def test_small_data_is_passed_over_until_the_steps_suffice(
    stripes: Dataset, min_steps: int, steps: int
) -> None:
    recipe = replace(RECIPE, epochs=3, batch_size=30, min_steps=min_steps, schedule="linear")
    rows = Examples(stripes.inputs, stripes.labels, 255)
    *_, last = fit(NETWORK, recipe, rows, rows, seed=0)
    assert last.number == 3
    # The last step's learning rate is one step above 0.
    assert last.state.learning_rates[-1] == pytest.approx(recipe.learning_rate / steps)


def test_the_loss_of_an_epoch_of_several_passes_is_a_mean_over_rows(stripes: Dataset) -> None:
    recipe = Recipe(batch_size=256, epochs=1, min_steps=9, optimizer="sgd", learning_rate=1e-12)
    rows = Examples(stripes.inputs, stripes.labels, 255)
    (several,) = fit(NETWORK, recipe, rows, rows, seed=5)
    (one,) = fit(NETWORK, replace(recipe, min_steps=0), rows, rows, seed=5)
    assert several.loss == pytest.approx(one.loss, rel=1e-5)


def test_the_average_follows_the_weights(stripes: Dataset) -> None:
    recipe = Recipe(batch_size=1000, epochs=3, averaging=0.75, schedule="constant")
    part = Examples(stripes.inputs, stripes.labels, 255)
    expected = TrainingState.initial(NETWORK, recipe, 5).weights
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
    held = {}
    tracemalloc.start()
    try:
        for epoch in _fit(stripes, recipe):
            if epoch.number in (6, 30):  # a snapshot takes as long as many epochs
                gc.collect()
                held[epoch.number] = _held_by_training()
    finally:
        tracemalloc.stop()
    # Three numbers an epoch are kept on purpose, for the curves.
    assert held[30] - held[6] < 10_000
