"""Fitting: mini-batch gradient descent, one epoch at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model.network import Network, Weights, initialise, loss_and_gradients
from mlpserve_trainer.errors import TrainingDiverged
from mlpserve_trainer.evaluation import accuracy
from mlpserve_trainer.optimizers import OPTIMIZERS, SCHEDULES, Optimizer
from mlpserve_trainer.recipe import Recipe
from mlpserve_trainer.split import Examples

__all__ = ["Epoch", "batches", "fit", "smoothed_targets"]


@dataclass(frozen=True, eq=False)
class Epoch:
    """What an epoch has led to.

    * `number`: from 1.
    * `loss`: mean over the epoch's rows, each as its batch came to it.
    * `validation_accuracy`: after the epoch.
    * `weights`: the live ones, which the next epoch goes on changing; the last epoch's stay.
    """

    number: int
    loss: float
    validation_accuracy: float
    weights: Weights


def fit(
    network: Network, recipe: Recipe, training: Examples, validation: Examples, seed: int
) -> Iterator[Epoch]:
    """Fit a new network, yielding after every epoch.

    All randomness comes from one generator made of `seed`.

    Raises TrainingDiverged when the loss is no longer finite.
    """
    rng = np.random.default_rng(seed)
    weights = initialise(network, rng, recipe.initialisation)
    optimizer = OPTIMIZERS[recipe.optimizer](weights)
    for number in range(1, recipe.epochs + 1):
        order = rng.permutation(len(training))
        loss = _run_epoch(network, recipe, weights, optimizer, training, order, number)
        yield Epoch(number, loss, accuracy(network, weights, validation), weights)


def batches(order: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
    """Cut the rows into batches, the last one as small as it comes."""
    for start in range(0, len(order), size):
        yield order[start : start + size]


def smoothed_targets(classes: int, smoothing: float) -> npt.NDArray[np.float32]:
    """Return the target of each class as a row: 1 - smoothing, and `smoothing` spread evenly.

    Szegedy et al., Rethinking the Inception architecture (2016), section 7.
    """
    targets = np.full((classes, classes), smoothing / classes, dtype=np.float32)
    np.fill_diagonal(targets, 1 - smoothing + smoothing / classes)
    return targets


def _run_epoch(
    network: Network,
    recipe: Recipe,
    weights: Weights,
    optimizer: Optimizer,
    training: Examples,
    order: npt.NDArray[np.intp],
    number: int,
) -> float:
    """Change the weights by one pass over the rows in this order; return the mean loss."""
    targets = smoothed_targets(network.classes, recipe.label_smoothing)
    steps = math.ceil(len(order) / recipe.batch_size)
    total = 0.0
    # Overflow is what divergence looks like from inside; it is reported below, in words.
    with np.errstate(over="ignore", invalid="ignore"):
        for step, rows in enumerate(batches(order, recipe.batch_size)):
            x, t = training.scaled(rows), targets[training.labels[rows]]
            loss, gradients = loss_and_gradients(network, weights, x, t, recipe.loss)
            if not math.isfinite(loss):
                raise TrainingDiverged(_advice(recipe, loss, number, step + 1))
            progress = (number - 1 + step / steps) / recipe.epochs
            rate = recipe.learning_rate * SCHEDULES[recipe.schedule](progress)
            optimizer.step(weights, gradients, rate)
            total += loss * len(rows)
    return total / len(order)


def _advice(recipe: Recipe, loss: float, number: int, step: int) -> str:
    return (
        f"training diverged: the loss is {loss} in epoch {number}, step {step}; "
        f"lower --learning-rate (it is {recipe.learning_rate:g})"
    )
