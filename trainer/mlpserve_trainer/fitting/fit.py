"""Fitting: mini-batch gradient descent, one epoch at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import Network, Weights
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.errors import TrainingDiverged
from mlpserve_trainer.evaluation.scores import accuracy
from mlpserve_trainer.fitting.batch_loader import feed_for, first_used, rarest_first
from mlpserve_trainer.fitting.learning_rates import rate_share
from mlpserve_trainer.fitting.parallel.lockstep import Team, Work, in_turns, shared
from mlpserve_trainer.fitting.parallel.shard import TURNS, Board, Part, layers_of
from mlpserve_trainer.fitting.parallel.shard_state import Owned
from mlpserve_trainer.fitting.state import State
from mlpserve_trainer.recipe import Recipe

__all__ = ["Epoch", "batches", "fit", "smoothed_targets"]

# Multiplications in a pass below which two processes cost more than they save.
WORTH_SHARING = 2**22


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
    training that was over, the last epoch comes once more. The parts of the network are trained
    side by side in two processes; without `side_by_side`, or with one core, they take turns in
    this one, for the same weights.

    Raises TrainingDiverged when the loss is no longer finite, TeamBroken when a process is lost.
    """
    state = state or State.fresh(network, recipe, seed)
    if _is_over(recipe, state):
        yield _last_epoch(network, state)
    members = _members(network, recipe, training)
    fitting = _Fitting(network, recipe, training, state, members)
    run = Team().run if side_by_side else in_turns
    while not _is_over(recipe, state):
        loss, rate = fitting.run_epoch(seed, run)
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

    The network is cut into one part for each member of the team. The cut does not depend on the
    machine: the weights are the same on one core.
    """

    def __init__(
        self, network: Network, recipe: Recipe, training: Examples, state: State, members: int
    ) -> None:
        self._recipe, self._training, self._state = recipe, training, state
        self._targets = smoothed_targets(network.classes, recipe.label_smoothing)
        most = min(recipe.batch_size, len(training))
        inputs = _given(recipe, training)
        self._parts = [Part(network, recipe, member, members, inputs) for member in range(members)]
        self._first_used = np.zeros(len(training), np.intp)
        if inputs is not None:
            network = replace(network, layer_sizes=(len(inputs), *network.layer_sizes[1:]))
            flat = training.inputs.reshape(len(training), -1)
            # Not by an index, which would leave the rows in pieces.
            training = replace(training, inputs=flat.take(inputs, axis=1))
            if len(network.layer_sizes) > 2:
                self._first_used = first_used(training.inputs)
        # Each feeds itself with whole batches, unless that is much work.
        self._together = recipe.augments and training.are_pictures
        share = math.ceil(most / members) if self._together else most
        self._feeds = [feed_for(recipe, training, share) for _ in self._parts]
        counts = {most, len(training) % most or most}
        self._boards = {rows: Board(network, members, rows, self._together) for rows in counts}
        self._norms = shared(TURNS, members)
        self._owned = [Owned(state, part) for part in self._parts]
        self._steps = math.ceil(len(training) / recipe.batch_size)

    def run_epoch(self, seed: int, run: Callable[[Sequence[Work]], object]) -> tuple[float, float]:
        """Pass over the rows once; return the mean loss and the last rate."""
        done, members = self._state.epochs, len(self._parts)
        orders, *generators = map(
            np.random.default_rng, np.random.SeedSequence((seed, done)).spawn(members + 1)
        )
        order = orders.permutation(len(self._training))
        rates = [self._rate(done * self._steps + step) for step in range(self._steps)]
        starts = range(0, len(order), self._recipe.batch_size)
        zeros = np.minimum.reduceat(self._first_used[order], starts).tolist()
        losses: list[float] = []
        # Overflow is what divergence looks like from inside; it is reported in words.
        with np.errstate(all="ignore"):
            run(
                [
                    self._pass(member, order, zip(rates, zeros, strict=True), rng, losses)
                    for member, rng in enumerate(generators)
                ]
            )
        for owned in self._owned:
            owned.give_back()
        return math.fsum(losses) / len(order), rates[-1]

    def _rate(self, step: int) -> float:
        progress = step / (self._steps * self._recipe.epochs)
        share = rate_share(self._recipe.schedule, self._recipe.warmup, progress)
        return self._recipe.learning_rate * share

    def _pass(
        self,
        member: int,
        order: npt.NDArray[np.intp],
        steps: Iterable[tuple[float, int]],
        rng: np.random.Generator,
        losses: list[float],
    ) -> Work:
        """One member's work in an epoch; the first one writes the `losses` down.

        Of each step there are its rate, and how many of the first inputs no row of it uses.
        """
        part, done = self._parts[member], self._state.epochs * self._steps
        labels = batches(self._training.labels[order], self._recipe.batch_size)
        boards = self._feeding(member, order, rng)
        # What all read has to be there a meeting before.
        ahead = next(boards) if self._together else None
        yield
        for step, ((rate, zeros), answers) in enumerate(zip(steps, labels, strict=True)):
            turn, board = step % TURNS, ahead or next(boards)
            yield from part.forward(board, turn, rng, zeros)
            if ahead:
                ahead = next(boards, board)
            targets = self._targets.take(answers, axis=1)
            yield
            loss = yield from part.backward(board, turn, targets)
            if member == 0:
                if not math.isfinite(loss):
                    where = f"epoch {self._state.epochs + 1}, step {step + 1}"
                    raise TrainingDiverged(_advice(self._recipe, loss / board.rows, where))
                losses.append(loss)
            if self._recipe.clip_norm:
                self._norms[turn, member] = np.linalg.norm(part.gradient)
                yield
                _shorten(part.gradient, self._norms[turn], self._recipe.clip_norm)
            self._owned[member].update(done + step + 1, rate, self._recipe)

    def _feeding(
        self, member: int, order: npt.NDArray[np.intp], rng: np.random.Generator
    ) -> Iterator[Board]:
        """Put one batch after the other on a board, or this member's share; yield the boards."""
        feed, members = self._feeds[member], len(self._parts) if self._together else 1
        for step, rows in enumerate(batches(order, self._recipe.batch_size)):
            board, each = self._boards[len(rows)], -(-len(rows) // members)
            first = member * each if self._together else 0
            own = slice(first, first + each)
            feed(board.inputs[member][step % TURNS][own], rows[own], rng)
            yield board


def _shorten(gradient: npt.NDArray[np.float32], norms: npt.NDArray[Any], longest: float) -> None:
    """Shorten a gradient, whose parts have these norms, to `longest`.

    Pascanu et al., On the difficulty of training recurrent neural networks (2013), algorithm 1.
    """
    length = float(np.linalg.norm(norms))
    if length > longest:
        np.multiply(gradient, longest / length, out=gradient)


def _given(recipe: Recipe, training: Examples) -> npt.NDArray[np.intp] | None:
    """The order in which the parts get the inputs, or None for that in which they come.

    An input that is zero changes no product, and its weights have no gradient. So those that no
    row uses are left out, where nothing else moves their weights; and a batch spares those at
    the front that none of its rows uses. Bent pictures may use any.
    """
    if recipe.augments and training.are_pictures:
        return None
    rows = training.inputs.reshape(len(training), -1)
    return rarest_first(rows, recipe.batch_size, with_unused=recipe.weight_decay > 0)


def _members(network: Network, recipe: Recipe, training: Examples) -> int:
    rows = min(recipe.batch_size, len(training))
    enough = network.parameters * rows >= WORTH_SHARING and min(network.layer_sizes[:-1]) > 1
    return 2 if enough else 1


def _advice(recipe: Recipe, loss: float, where: str) -> str:
    return (
        f"training diverged: the loss is {loss} in {where}; "
        f"lower --learning-rate (it is {recipe.learning_rate:g})"
    )
