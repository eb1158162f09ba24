"""The parallel engine: shards of a network that take each step together.

How a network is cut does not depend on the machine, so the weights are the same on one core.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mlpserve_model.nn.network import Network
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.batch_loader import augments, batch_loader
from mlpserve_trainer.fitting.engine import Batch, smoothed_targets
from mlpserve_trainer.fitting.parallel.lockstep import (
    BARRIER,
    Lockstep,
    Steps,
    Task,
    run_interleaved,
    shared,
)
from mlpserve_trainer.fitting.parallel.shard import SLOTS, Shard, SharedBuffers
from mlpserve_trainer.fitting.parallel.shard_state import ShardState
from mlpserve_trainer.fitting.parallel.used_inputs import used_inputs
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["ParallelEngine", "interleaved_engine", "row_slice", "shard_count"]

# Multiplications in a pass below which a second process costs more than it saves.
MIN_PARALLEL_WORK = 2**22


class ParallelEngine:
    """Takes each step on all shards at once, in processes of their own where that is faster.

    Raises ProcessLost from `run` when one of the processes fails or is killed.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        examples: Examples,
        state: TrainingState,
        fork: bool = True,
    ) -> None:
        rows_in_epoch = examples.rows_in_epoch
        self._recipe, members = recipe, shard_count(network, recipe, rows_in_epoch)
        self._targets = smoothed_targets(network.classes, recipe.label_smoothing)
        self._inputs = used = used_inputs(recipe, examples, len(network.layer_shapes))
        self._shards = [Shard(network, recipe, m, members, used.order) for m in range(members)]
        self._states = [ShardState(state, shard) for shard in self._shards]
        # Augmentation is worth sharing: each shard then loads only some rows, for all of them.
        self._shared_inputs = augments(recipe, examples)
        max_rows = min(recipe.batch_size, rows_in_epoch)
        share = math.ceil(max_rows / members) if self._shared_inputs else max_rows
        self._loaders = [batch_loader(recipe, used.examples, share) for _ in self._shards]
        self._buffers = {
            rows: SharedBuffers(used.reduced(network), members, rows, self._shared_inputs)
            for rows in {max_rows, rows_in_epoch % max_rows or max_rows}
        }
        self._norms = shared(SLOTS, members)
        self._run = Lockstep().run if fork else run_interleaved

    def run(self, batches: Sequence[Batch], seeds: np.random.SeedSequence) -> Steps:
        """Take one step for each batch, and yield its loss; see Engine."""
        first_used = self._inputs.first_of(batches)
        generators = map(np.random.default_rng, seeds.spawn(len(self._shards)))
        steps = yield from self._run(
            [self._task(m, batches, first_used, rng) for m, rng in enumerate(generators)]
        )
        for state in self._states:
            state.write_back()
        return steps

    def _task(
        self,
        member: int,
        batches: Sequence[Batch],
        first_used: Sequence[int],
        rng: np.random.Generator,
    ) -> Task:
        """Take one shard's part in every step of an epoch."""
        shard, state = self._shards[member], self._states[member]
        self._load_ahead(member, batches, 0, rng)
        yield BARRIER
        for step, batch in enumerate(batches):
            slot, buffers = step % SLOTS, self._buffers[len(batch.rows)]
            if not self._shared_inputs:
                self._load(member, batch, slot, rng)
            yield from shard.forward(buffers, slot, rng, first_used[step])
            self._load_ahead(member, batches, step + 1, rng)
            targets = self._targets.take(batch.labels, axis=1)
            yield BARRIER
            loss = yield from shard.backward(buffers, slot, targets)
            if self._recipe.clip_norm:
                yield from self._clip(member, slot)
            state.update(batch.step, batch.learning_rate, self._recipe)
            yield loss

    def _clip(self, member: int, slot: int) -> Iterator[None]:
        """Scale this shard's gradient so that the norm over all shards is at most `clip_norm`.

        Pascanu et al., On the difficulty of training recurrent neural networks (2013), algorithm 1.
        """
        gradient, max_norm = self._shards[member].gradient, self._recipe.clip_norm
        self._norms[slot, member] = np.linalg.norm(gradient)
        yield BARRIER
        norm = float(np.linalg.norm(self._norms[slot]))
        if norm > max_norm:
            np.multiply(gradient, max_norm / norm, out=gradient)

    def _load_ahead(
        self, member: int, batches: Sequence[Batch], step: int, rng: np.random.Generator
    ) -> None:
        """Load what other shards read too, which has to be there one barrier before `step`."""
        if self._shared_inputs and step < len(batches):
            self._load(member, batches[step], step % SLOTS, rng)

    def _load(self, member: int, batch: Batch, slot: int, rng: np.random.Generator) -> None:
        """Load the batch, or this shard's rows of it, into the slot."""
        rows = len(batch.rows)
        own = row_slice(rows, member, len(self._shards)) if self._shared_inputs else slice(rows)
        inputs = self._buffers[rows].inputs[member][slot]
        self._loaders[member](inputs[own], batch.rows[own], rng)


def interleaved_engine(
    network: Network, recipe: Recipe, examples: Examples, state: TrainingState
) -> ParallelEngine:
    """Return a ParallelEngine that forks no processes, for the same weights."""
    return ParallelEngine(network, recipe, examples, state, fork=False)


def shard_count(network: Network, recipe: Recipe, rows: int) -> int:
    """Return into how many shards a training on so many rows cuts the network."""
    work = network.parameters * min(recipe.batch_size, rows)
    return 2 if work >= MIN_PARALLEL_WORK and min(network.layer_sizes[:-1]) > 1 else 1


def row_slice(rows: int, member: int, members: int) -> slice:
    """Return which rows of a batch a shard loads, where it loads some for all of them."""
    share = math.ceil(rows / members)
    return slice(member * share, (member + 1) * share)
