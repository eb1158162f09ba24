"""Fitting: mini-batch gradient descent, one epoch at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mlpserve_model.network import Network, Weights
from mlpserve_trainer.errors import TrainingDiverged
from mlpserve_trainer.evaluation import accuracy
from mlpserve_trainer.feed import feed_for
from mlpserve_trainer.optimizers import OPTIMIZERS
from mlpserve_trainer.recipe import Recipe
from mlpserve_trainer.schedules import rate_share
from mlpserve_trainer.split import Examples
from mlpserve_trainer.state import State
from mlpserve_trainer.step import Shard, layers_of
from mlpserve_trainer.team import Team

__all__ = ["Epoch", "batches", "fit", "smoothed_targets"]

# Multiplications in a step below which two threads cost more than they save.
WORTH_SHARING = 2**20
# Parameters that an optimizer goes through at a time: its passes over them stay in the cache.
BLOCK = 2**15


@dataclass(frozen=True, eq=False)
class Epoch:
    """What an epoch has led to.

    * `number`: from 1.
    * `loss`: mean over the epoch's rows, each as its batch came to it.
    * `validation_accuracy`: after the epoch.
    * `weights`: the ones to keep if the training ended here; views that the next epoch changes.
    * `state`: all that the next epoch starts from.
    """

    number: int
    loss: float
    validation_accuracy: float
    weights: Weights
    state: State


def fit(
    network: Network,
    recipe: Recipe,
    training: Examples,
    validation: Examples,
    seed: int,
    state: State | None = None,
    side_by_side: bool = True,
) -> Iterator[Epoch]:
    """Fit a network, yielding after every epoch.

    All randomness of an epoch comes from `seed` and its number, so a training that goes on from
    a `state` comes to the same weights, bit for bit, as one that was never interrupted. Of a
    training that was over, the last epoch comes once more. Without `side_by_side` the two halves
    of a batch take turns on one thread, for the same weights.

    Raises TrainingDiverged when the loss is no longer finite.
    """
    state = state or State.fresh(network, recipe, seed)
    if _is_over(recipe, state):
        yield _last_epoch(network, state)
    members = 2 if _worth_sharing(network, recipe, training) else 1
    with Team(members, side_by_side) as team:
        fitting = _Fitting(network, recipe, training, state, team)
        while not _is_over(recipe, state):
            loss, rate = fitting.run_epoch(seed)
            reached = accuracy(network, layers_of(network, state.current), validation)
            state.add(loss, reached, rate, keep_best=recipe.patience > 0)
            yield _last_epoch(network, state)


def _is_over(recipe: Recipe, state: State) -> bool:
    return state.epochs >= recipe.epochs or not state.patient(recipe.patience)


def _last_epoch(network: Network, state: State) -> Epoch:
    weights = layers_of(network, state.chosen)
    return Epoch(state.epochs, state.losses[-1], state.accuracies[-1], weights, state)


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


class _Fitting:
    """The parts of a training that the epochs share.

    Each batch is cut into one shard for each member of the team, and so are the weights for the
    optimizer. The cut does not depend on the machine: the weights are the same on one core.
    """

    def __init__(
        self, network: Network, recipe: Recipe, training: Examples, state: State, team: Team
    ) -> None:
        self._recipe, self._training, self._state, self._team = recipe, training, state, team
        self._targets = smoothed_targets(network.classes, recipe.label_smoothing)
        weights = layers_of(network, state.weights)
        rows = math.ceil(min(recipe.batch_size, len(training)) / team.size)
        self._shards = [Shard(network, weights, recipe, rows) for _ in range(team.size)]
        self._feeds = [feed_for(recipe, training, rows) for _ in range(team.size)]
        self._blocks = _blocks(network.parameters, team.size)
        self._steps = math.ceil(len(training) / recipe.batch_size)

    def run_epoch(self, seed: int) -> tuple[float, float]:
        """Pass over the rows once; return the mean loss and the last rate."""
        done = self._state.epochs
        orders, *generators = map(
            np.random.default_rng, np.random.SeedSequence((seed, done)).spawn(self._team.size + 1)
        )
        order = orders.permutation(len(self._training))
        total = rate = 0.0
        for step, rows in enumerate(batches(order, self._recipe.batch_size)):
            loss = self._gradient(rows, generators)
            if not math.isfinite(loss):
                raise TrainingDiverged(_advice(self._recipe, loss / len(rows), done + 1, step + 1))
            number = done * self._steps + step
            rate = self._rate(number)
            self._update(number + 1, rate)
            total += loss
        return total / len(order), rate

    def _rate(self, step: int) -> float:
        progress = step / (self._steps * self._recipe.epochs)
        share = rate_share(self._recipe.schedule, self._recipe.warmup, progress)
        return self._recipe.learning_rate * share

    def _gradient(self, rows: npt.NDArray[np.intp], generators: list[np.random.Generator]) -> float:
        """Leave each shard's gradient in it; return the sum of the losses."""
        each = math.ceil(len(rows) / self._team.size)

        def run(member: int) -> float:
            shard, rng = self._shards[member], generators[member]
            part = rows[member * each : (member + 1) * each]
            self._feeds[member](shard.inputs[: len(part)], part, rng)
            targets = self._targets[self._training.labels[part]]
            return shard.run(targets, len(rows), rng)

        return self._team.run(_quietly(run))

    def _update(self, step: int, rate: float) -> None:
        """Add the shards' gradients up and let the optimizer change the weights."""
        state, recipe = self._state, self._recipe
        first, *others = (shard.gradient for shard in self._shards)
        update = OPTIMIZERS[recipe.optimizer].update
        shrink = self._shrink()

        def run(member: int) -> float:
            for block in self._blocks[member]:
                g = first[block]
                for other in others:
                    np.add(g, other[block], out=g)
                if shrink < 1:
                    np.multiply(g, shrink, out=g)
                update(state.weights[block], g, state.memory[:, block], step, rate, recipe)
                if state.average is not None:
                    _move_average(state.average[block], state.weights[block], recipe.averaging, g)
            return 0.0

        self._team.run(_quietly(run))

    def _shrink(self) -> float:
        """What the gradient is multiplied by so that it is no longer than `clip_norm`.

        Pascanu et al., On the difficulty of training recurrent neural networks (2013), algorithm 1.
        """
        longest = self._recipe.clip_norm
        if not longest:
            return 1.0
        length = float(np.linalg.norm(np.sum([s.gradient for s in self._shards], axis=0)))
        return min(1.0, longest / length) if length else 1.0


def _quietly(task: Callable[[int], float]) -> Callable[[int], float]:
    """Overflow is what divergence looks like from inside; it is reported above, in words."""

    def run(member: int) -> float:
        with np.errstate(all="ignore"):
            return task(member)

    return run


def _move_average(
    average: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    kept: float,
    scratch: npt.NDArray[np.float32],
) -> None:
    """Average <- kept · average + (1 - kept) · weights: Polyak's averaging, exponential."""
    np.subtract(weights, average, out=scratch)
    np.multiply(scratch, 1 - kept, out=scratch)
    np.add(average, scratch, out=average)


def _worth_sharing(network: Network, recipe: Recipe, training: Examples) -> bool:
    return network.parameters * min(recipe.batch_size, len(training)) >= WORTH_SHARING


def _blocks(parameters: int, members: int) -> list[list[slice]]:
    """Cut the parameters into blocks, as many for each member."""
    each = math.ceil(parameters / BLOCK / members)
    edges = np.linspace(0, parameters, members * each + 1).astype(int).tolist()
    blocks = [slice(start, end) for start, end in pairwise(edges)]
    return [blocks[member * each : (member + 1) * each] for member in range(members)]


def _advice(recipe: Recipe, loss: float, number: int, step: int) -> str:
    return (
        f"training diverged: the loss is {loss} in epoch {number}, step {step}; "
        f"lower --learning-rate (it is {recipe.learning_rate:g})"
    )
