"""Fitting: mini-batch gradient descent, one epoch at a time."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from mlpserve_model.nn.network import Network, Weights
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.errors import TrainingDiverged
from mlpserve_trainer.evaluation.scores import accuracy
from mlpserve_trainer.fitting.batch_loader import batches
from mlpserve_trainer.fitting.engine import Batch, Engine, EngineFactory
from mlpserve_trainer.fitting.learning_rates import rate_fraction
from mlpserve_trainer.fitting.parallel.engine import ParallelEngine
from mlpserve_trainer.fitting.state import TrainingState, layers_of
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["Epoch", "fit", "run_epoch"]


@dataclass(frozen=True, eq=False)
class Epoch:
    """The result of an epoch.

    Attributes:
        number: Number of the epoch, from 1.
        loss: Mean loss over the epoch's rows, each as its batch computed it.
        validation_accuracy: Accuracy on the validation examples after the epoch.
        network: The network that answers: with softmax outputs once it is calibrated.
        weights: The weights to keep if the training ended here: views that the next epoch changes.
        state: Everything that the next epoch starts from.
        temperature: Temperature that is folded into the weights, None without calibration.
    """

    number: int
    loss: float
    validation_accuracy: float
    network: Network
    weights: Weights
    state: TrainingState
    temperature: float | None = None


def fit(
    network: Network,
    recipe: Recipe,
    training: Examples,
    validation: Examples,
    seed: int,
    state: TrainingState | None = None,
    engine: EngineFactory = ParallelEngine,
) -> Iterator[Epoch]:
    """Fit a network, and yield after every epoch; a complete training yields its last one again.

    All randomness derives from `seed` and the epoch's number, so a training resumed from a `state`
    ends with the same weights, bit for bit, as one that was never interrupted.
    Raises TrainingDiverged when the loss is not finite, and what the engine raises.
    """
    state = state or TrainingState.initial(network, recipe, seed)
    if _is_over(recipe, state):
        yield _last_epoch(network, state)
        return
    steps = engine(network, recipe, training, state)
    while not _is_over(recipe, state):
        loss, rate = run_epoch(steps, recipe, training, seed, state.epochs)
        reached = accuracy(network, layers_of(network, state.current), validation)
        state.add_epoch(loss, reached, rate, keep_best=recipe.patience > 0)
        yield _last_epoch(network, state)


def _is_over(recipe: Recipe, state: TrainingState) -> bool:
    return state.epochs >= recipe.epochs or not state.is_patient(recipe.patience)


def _last_epoch(network: Network, state: TrainingState) -> Epoch:
    weights = layers_of(network, state.chosen)
    loss, accuracy = state.losses[-1], state.accuracies[-1]
    return Epoch(state.epochs, loss, accuracy, network, weights, state)


def run_epoch(
    engine: Engine, recipe: Recipe, examples: Examples, seed: int, completed: int
) -> tuple[float, float]:
    """Take the steps of an epoch; return the mean loss and the last learning rate."""
    seeds = np.random.SeedSequence((seed, completed))
    epoch = _batches(recipe, examples, seeds, completed)
    losses: list[float] = []
    # Overflow is how divergence shows in the arithmetic; the error below reports it.
    with np.errstate(all="ignore"), closing(engine.run(epoch, seeds)) as steps:
        for loss, batch in zip(steps, epoch, strict=True):
            losses.append(loss)
            if not math.isfinite(loss):
                where = f"epoch {completed + 1}, step {len(losses)}"
                raise TrainingDiverged(_advice(recipe, loss / len(batch.rows), where))
    rows = sum(len(batch.rows) for batch in epoch)
    return math.fsum(losses) / rows, epoch[-1].learning_rate


def _batches(
    recipe: Recipe, examples: Examples, seeds: np.random.SeedSequence, completed: int
) -> Sequence[Batch]:
    """Return the batches of an epoch after `completed` ones, in random order.

    An epoch over small data is several passes, so that the training has `min_steps` steps.
    """
    (order_seed,) = seeds.spawn(1)
    rng = np.random.default_rng(order_seed)
    steps_in_pass = math.ceil(examples.rows_in_epoch / recipe.batch_size)
    passes = math.ceil(recipe.min_steps / (steps_in_pass * recipe.epochs)) or 1
    orders = (examples.order(rng) for _ in range(passes))
    rows = [batch for order in orders for batch in batches(order, recipe.batch_size)]
    first, total = completed * len(rows), recipe.epochs * len(rows)
    return [
        Batch(batch, examples.labels[batch], step + 1, _learning_rate(recipe, step / total))
        for step, batch in enumerate(rows, first)
    ]


def _learning_rate(recipe: Recipe, progress: float) -> float:
    return recipe.learning_rate * rate_fraction(recipe.schedule, recipe.warmup, progress)


def _advice(recipe: Recipe, loss: float, where: str) -> str:
    return (
        f"training diverged: the loss is {loss} in {where}; "
        f"lower --learning-rate (it is {recipe.learning_rate:g})"
    )
