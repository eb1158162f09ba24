"""Fitting: mini-batch gradient descent, one epoch at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from mlpserve_trainer.step import TURNS, Board, Part, layers_of
from mlpserve_trainer.team import Team, Work, cores, in_turns

__all__ = ["Epoch", "batches", "fit", "smoothed_targets"]

# Multiplications in a pass below which two threads cost more than they save.
WORTH_SHARING = 2**22
# Parameters that an optimizer goes through at a time: its passes over them stay in the cache.
BLOCK = 2**16


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
    training that was over, the last epoch comes once more. Without `side_by_side`, or with one
    core, the parts of the network take turns on one thread, for the same weights.

    Raises TrainingDiverged when the loss is no longer finite.
    """
    state = state or State.fresh(network, recipe, seed)
    if _is_over(recipe, state):
        yield _last_epoch(network, state)
    members = _members(network, recipe, training)
    fitting = _Fitting(network, recipe, training, state, members)
    run = Team().run if side_by_side and members > 1 and cores() > 1 else in_turns
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
        alive = _alive(recipe, training)
        self._parts = [Part(network, recipe, member, members, alive) for member in range(members)]
        if alive is not None:
            network = replace(network, layer_sizes=(len(alive), *network.layer_sizes[1:]))
            flat = training.inputs.reshape(len(training), -1)
            # Not by an index, which would leave the rows in pieces.
            training = replace(training, inputs=flat.take(alive, axis=1))
        self._feeds = [feed_for(recipe, training, math.ceil(most / members)) for _ in self._parts]
        counts = {most, len(training) % most or most}
        self._boards = {rows: Board(network, members, rows) for rows in counts}
        self._norms = np.zeros((TURNS, members))
        self._steps = math.ceil(len(training) / recipe.batch_size)

    def run_epoch(self, seed: int, run: Callable[[Sequence[Work]], object]) -> tuple[float, float]:
        """Pass over the rows once; return the mean loss and the last rate."""
        done, members = self._state.epochs, len(self._parts)
        orders, *generators = map(
            np.random.default_rng, np.random.SeedSequence((seed, done)).spawn(members + 1)
        )
        order = orders.permutation(len(self._training))
        rates = [self._rate(done * self._steps + step) for step in range(self._steps)]
        losses: list[float] = []
        # Overflow is what divergence looks like from inside; it is reported in words.
        with np.errstate(all="ignore"):
            run(
                [
                    self._pass(member, order, rates, rng, losses)
                    for member, rng in enumerate(generators)
                ]
            )
        return math.fsum(losses) / len(order), rates[-1]

    def _rate(self, step: int) -> float:
        progress = step / (self._steps * self._recipe.epochs)
        share = rate_share(self._recipe.schedule, self._recipe.warmup, progress)
        return self._recipe.learning_rate * share

    def _pass(
        self,
        member: int,
        order: npt.NDArray[np.intp],
        rates: list[float],
        rng: np.random.Generator,
        losses: list[float],
    ) -> Work:
        """One member's work in an epoch; the first one writes the `losses` down."""
        part, done = self._parts[member], self._state.epochs * self._steps
        owned = _Owned(self._state, part)
        labels = batches(self._training.labels[order], self._recipe.batch_size)
        boards = self._feeding(member, order, rng)
        board = next(boards)
        yield
        for step, (rate, answers) in enumerate(zip(rates, labels, strict=True)):
            turn = step % TURNS
            yield from part.forward(board, turn, rng)
            following = next(boards, board)
            targets = self._targets.take(answers, axis=1)
            yield
            loss = yield from part.backward(board, turn, targets)
            if not math.isfinite(loss):
                where = f"epoch {self._state.epochs + 1}, step {step + 1}"
                raise TrainingDiverged(_advice(self._recipe, loss / board.rows, where))
            if member == 0:
                losses.append(loss)
            if self._recipe.clip_norm:
                self._norms[turn, member] = np.linalg.norm(part.gradient)
                yield
                _shorten(part.gradient, self._norms[turn], self._recipe.clip_norm)
            owned.update(done + step + 1, rate, self._recipe)
            board = following
        owned.give_back()

    def _feeding(
        self, member: int, order: npt.NDArray[np.intp], rng: np.random.Generator
    ) -> Iterator[Board]:
        """Put this member's share of one batch after the other on a board; yield the boards."""
        feed, members = self._feeds[member], len(self._parts)
        for step, rows in enumerate(batches(order, self._recipe.batch_size)):
            board, each = self._boards[len(rows)], -(-len(rows) // members)
            own = slice(member * each, (member + 1) * each)
            feed(board.inputs[step % TURNS][own], rows[own], rng)
            yield board


class _Owned:
    """What one member holds of the state while an epoch runs, cut into blocks."""

    def __init__(self, state: State, part: Part) -> None:
        self._state, self._part = state, part
        part.weights[:] = state.weights[part.positions]
        # Not by an index, which would leave the slots interleaved.
        self._memory = np.take(state.memory, part.positions, axis=1)
        self._average = part.weights if state.average is None else state.average[part.positions]
        count = math.ceil(len(part.weights) / BLOCK)
        edges = np.linspace(0, len(part.weights), count + 1).astype(int).tolist()
        self._blocks = [
            (part.weights[block], part.gradient[block], list(self._memory[:, block]), block)
            for block in map(slice, edges[:-1], edges[1:])
        ]

    def update(self, step: int, rate: float, recipe: Recipe) -> None:
        """Let the optimizer change the weights by the gradient, which is used up."""
        update = OPTIMIZERS[recipe.optimizer].update
        for w, g, memory, block in self._blocks:
            update(w, g, memory, step, rate, recipe)
            if self._state.average is not None:
                _move_average(self._average[block], w, recipe.averaging, g)

    def give_back(self) -> None:
        """Write into the state what the epoch has come to."""
        state, positions = self._state, self._part.positions
        state.weights[positions] = self._part.weights
        state.memory[:, positions] = self._memory
        if state.average is not None:
            state.average[positions] = self._average


def _shorten(gradient: npt.NDArray[np.float32], norms: npt.NDArray[Any], longest: float) -> None:
    """Shorten a gradient, whose parts have these norms, to `longest`.

    Pascanu et al., On the difficulty of training recurrent neural networks (2013), algorithm 1.
    """
    length = float(np.linalg.norm(norms))
    if length > longest:
        np.multiply(gradient, longest / length, out=gradient)


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


def _alive(recipe: Recipe, training: Examples) -> npt.NDArray[np.intp] | None:
    """The inputs that are not zero in every row, or None for all of them.

    The others change no product, and their weights have no gradient: where nothing else moves
    those, they need no computing. They are one in twelve of MNIST's pixels.
    """
    if recipe.weight_decay or (recipe.augments and training.are_pictures):
        return None
    used = training.inputs.reshape(len(training), -1).any(axis=0)
    return None if used.all() or not used.any() else np.flatnonzero(used)


def _members(network: Network, recipe: Recipe, training: Examples) -> int:
    rows = min(recipe.batch_size, len(training))
    enough = network.parameters * rows >= WORTH_SHARING and min(network.layer_sizes[:-1]) > 1
    return 2 if enough else 1


def _advice(recipe: Recipe, loss: float, where: str) -> str:
    return (
        f"training diverged: the loss is {loss} in {where}; "
        f"lower --learning-rate (it is {recipe.learning_rate:g})"
    )
