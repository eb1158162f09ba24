"""Forward and backward pass of one shard: a slice of the network that one process computes.

Hidden layers are cut by their units, the last layer by its inputs. Every weight then belongs to
one shard, and no other shard needs its gradient or its optimizer state. The shards of a network
with one hidden layer exchange nothing but their summands of the logits, once a step. Shoeybi et
al., Megatron-LM (2019), cut layers in the same way for larger machines.
"""

from collections.abc import Generator, Iterator

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import Layer, Network, Weights
from mlpserve_model.nn.types import Array
from mlpserve_trainer.fitting.parallel.kernels import (
    ACTIVATIONS,
    Scratch,
    draw_mask,
    floats,
    output_delta,
    sum_in_order,
)
from mlpserve_trainer.fitting.parallel.lockstep import BARRIER, shared
from mlpserve_trainer.fitting.state import layers_of
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["SLOTS", "Shard", "SharedBuffers", "shard_slice"]

Floats = npt.NDArray[np.float32]

# Shared buffers exist three times, and steps use the slots in rotation: one shard may already
# fill those of the next step while another still reads those of the step before.
SLOTS = 3


class SharedBuffers:
    """What the shards of a network exchange in a pass over `rows` rows.

    Attributes:
        rows: Rows of the batch.
        inputs: Of each shard and slot, the batch (rows, inputs), to be filled before `forward`.
            With `shared_inputs` all shards have the same, and each may fill some of the rows.
            Otherwise each shard has one of its own for all slots: memory that another core has
            written takes longer to access.
        activations: Of each hidden layer but the last and each slot, (rows, units), where each
            shard writes its units.
        deltas: Of the same layers and each slot, (shards, rows, units), to be summed over shards.
        logits: Of each slot, (shards, classes, rows), to be summed over shards.
    """

    def __init__(self, network: Network, shards: int, rows: int, shared_inputs: bool) -> None:
        self.rows = rows
        if shared_inputs:
            self.inputs = [list(shared(SLOTS, rows, network.inputs))] * shards
        else:
            self.inputs = [[floats(rows, network.inputs)] * SLOTS for _ in range(shards)]
        between = network.layer_sizes[1:-2]
        self.activations = [list(shared(SLOTS, rows, units)) for units in between]
        self.deltas = [list(shared(SLOTS, shards, rows, units)) for units in between]
        self.logits = list(shared(SLOTS, shards, network.classes, rows))


class Shard:
    """The weights of one shard (owned,) and their gradient.

    A pass is `forward`, a barrier, `backward`. Both yield wherever they need a barrier too.

    Args:
        network: The whole network.
        recipe: Its loss and dropout are used.
        member: Which shard this is, counted from 0.
        members: Number of shards.
        inputs: Indices of the network's inputs that `forward` receives, in order; None for all.

    Attributes:
        positions: Indices (owned,) of its weights in the vector of all parameters.
        weights: Its weights (owned,), in shared memory, set and changed by the caller.
        gradient: Gradient (owned,) of the mean loss of a batch, set by `backward`.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        member: int = 0,
        members: int = 1,
        inputs: npt.NDArray[np.intp] | None = None,
    ) -> None:
        self._network, self._recipe, self._member = network, recipe, member
        positions = list(layers_of(network, np.arange(network.parameters, dtype=np.float64)))
        if inputs is not None:
            positions[0] = Layer(positions[0].w[inputs], positions[0].b)
        self._own_slices = [shard_slice(len(w), member, members) for w, _ in positions]
        pieces = _own_pieces(positions, self._own_slices, with_output_bias=member == 0)
        self.positions = np.concatenate([piece.ravel() for piece in pieces]).astype(np.intp)
        self.weights = shared(len(self.positions))
        self.gradient = np.zeros(len(self.positions), np.float32)
        self._layers = _layers_like(pieces, self.weights)
        self._gradients = _layers_like(pieces, self.gradient)
        self._activations = [ACTIVATIONS[name] for name in network.activations[:-1]]
        self._scratch: dict[int, Scratch] = {}

    def forward(
        self, buffers: SharedBuffers, slot: int, rng: np.random.Generator, first_used_input: int = 0
    ) -> Iterator[None]:
        """Compute this shard's summand of the logits.

        Args:
            buffers: Holds the inputs, and receives activations and logits.
            slot: Slot of this step in the buffers.
            rng: Source of the dropout masks.
            first_used_input: The inputs before this one are 0 in all rows, and are skipped.
        """
        scratch = self._scratch_for(buffers.rows)
        layer_input = buffers.inputs[self._member][slot][:, first_used_input:]
        scratch.layer_inputs = [layer_input]
        for level in range(len(self._layers) - 1):
            layer_input = self._hidden_layer(scratch, level, rng)
            if level < len(buffers.activations):
                whole = buffers.activations[level][slot]
                whole[:, self._own_slices[level + 1]] = layer_input
                yield BARRIER
                layer_input = whole
            scratch.layer_inputs.append(layer_input)
        if len(self._layers) == 1:
            scratch.layer_inputs = [layer_input[:, self._own_slices[0]]]
        self._last_layer(scratch, buffers.logits[slot][self._member])

    def backward(
        self, buffers: SharedBuffers, slot: int, targets: Floats
    ) -> Generator[None, None, float]:
        """Compute the gradient of the mean loss against `targets` (classes, rows).

        Returns:
            The loss summed over the rows.
        """
        scratch = self._scratch_for(buffers.rows)
        sum_in_order(buffers.logits[slot], scratch.logits)
        loss = output_delta(self._network, self._recipe.loss, scratch, targets)
        self._last_gradient(scratch)
        delta_above = scratch.output_delta.T
        for level in range(len(self._layers) - 2, -1, -1):
            delta, w_above = scratch.deltas[level], self._layers[level + 1].w
            if level < len(buffers.deltas):
                summands = buffers.deltas[level][slot]
                np.dot(delta_above, w_above.T, out=summands[self._member])
                yield BARRIER
                sum_in_order(summands[:, :, self._own_slices[level + 1]], delta)
            else:
                np.dot(delta_above, w_above.T, out=delta)
            self._hidden_gradient(scratch, level)
            delta_above = delta
        return loss

    def _hidden_layer(self, scratch: Scratch, level: int, rng: np.random.Generator) -> Floats:
        """Return the activations (rows, own units) of a hidden layer, after dropout."""
        (w, b), layer_input = self._layers[level], scratch.layer_inputs[level]
        a = scratch.outputs[level]
        np.matmul(layer_input, w[-layer_input.shape[1] :], out=a)  # np.dot would copy the slice
        np.add(a, b, out=a)
        if self._activations[level].needs_z:
            np.copyto(scratch.kept[level], a)
        self._activations[level].activate(a, scratch.zeros[level])
        return self._apply_dropout(scratch, level, rng) if self._recipe.dropout else a

    def _apply_dropout(self, scratch: Scratch, level: int, rng: np.random.Generator) -> Floats:
        mask, dropped = scratch.masks[level], scratch.dropped[level]
        draw_mask(mask, 1 - self._recipe.dropout, rng)
        np.multiply(scratch.outputs[level], mask, out=dropped)
        return dropped

    def _last_layer(self, scratch: Scratch, logits: Floats) -> None:
        w, b = self._layers[-1]
        # Logits are (classes, rows): NumPy reduces fastest along the last axis, the rows.
        np.dot(w.T, scratch.layer_inputs[-1].T, out=logits)
        if len(b):
            np.add(logits, b[:, np.newaxis], out=logits)

    def _last_gradient(self, scratch: Scratch) -> None:
        gradient, delta = self._gradients[-1], scratch.output_delta
        np.dot(scratch.layer_inputs[-1].T, delta.T, out=gradient.w)
        if len(gradient.b):
            np.dot(delta, scratch.ones, out=gradient.b)

    def _hidden_gradient(self, scratch: Scratch, level: int) -> None:
        """Turn the gradient with respect to the activation into that of the layer's weights."""
        delta, layer_input = scratch.deltas[level], scratch.layer_inputs[level]
        if self._recipe.dropout:
            np.multiply(delta, scratch.masks[level], out=delta)
        self._activations[level].backprop(delta, scratch.kept[level], scratch.positive[level])
        gradient, used = self._gradients[level], layer_input.shape[1]
        np.matmul(layer_input.T, delta, out=gradient.w[-used:])
        gradient.w[:-used] = 0
        np.dot(scratch.ones, delta, out=gradient.b)

    def _scratch_for(self, rows: int) -> Scratch:
        if rows not in self._scratch:
            units = [len(layer.b) for layer in self._layers[:-1]]
            classes = self._network.classes
            dropout = self._recipe.dropout > 0
            self._scratch[rows] = Scratch(rows, units, classes, dropout, self._activations)
        return self._scratch[rows]


def shard_slice(units: int, member: int, members: int) -> slice:
    """Return which of the units belong to a shard."""
    return slice(units * member // members, units * (member + 1) // members)


def _own_pieces(
    layers: list[Layer], own_slices: list[slice], with_output_bias: bool
) -> list[Array]:
    """Return a shard's slice of each array; the bias of the last layer belongs to one shard."""
    pieces = [
        piece
        for (w, b), own in zip(layers[:-1], own_slices[1:], strict=True)
        for piece in (w[:, own], b[own])
    ]
    w, b = layers[-1]
    return [*pieces, w[own_slices[-1]], b if with_output_bias else b[:0]]


def _layers_like(pieces: list[Array], vector: Floats) -> Weights:
    """Return layers with the shapes of the pieces, as consecutive views into the vector."""
    ends = np.cumsum([piece.size for piece in pieces])
    views = [
        part.reshape(piece.shape)
        for part, piece in zip(np.split(vector, ends[:-1]), pieces, strict=True)
    ]
    return tuple(Layer(w, b) for w, b in zip(views[::2], views[1::2], strict=True))
