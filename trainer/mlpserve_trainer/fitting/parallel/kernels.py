"""In-place arithmetic of a training step: no kernel allocates an array.

`mlpserve_model.nn` has the pure form of each, which the tests compare with.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from mlpserve_model.nn.losses import LOSSES
from mlpserve_model.nn.network import Network

__all__ = ["ACTIVATIONS", "Scratch", "draw_mask", "output_delta", "sum_in_order"]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class Scratch:
    """The buffers of one shard for passes over `rows` rows, which no other shard reads.

    Attributes:
        layer_inputs: Input of each layer, set by the forward pass.
        outputs: Activations (rows, units) of each hidden layer.
        kept: What the backward pass of each hidden layer needs: its activations, or a copy of its
            pre-activations (rows, units).
        deltas: Gradients of the loss with respect to z, (rows, units) of each hidden layer.
        masks: Dropout masks (rows, units) of each hidden layer, if there is dropout.
        dropped: Activations after dropout, (rows, units) of each hidden layer.
        zeros: Zeros (rows, units) of each hidden layer.
        positive: Where activations are positive, (rows, units) of each hidden layer.
        logits: Logits (classes, rows), summed over the shards.
        output_delta: Gradient (classes, rows) of the loss with respect to the logits.
        ones: Ones (rows,).
        row_max: Largest logit (1, rows) of each row.
        row_sums: Sum (1, rows) of the exponentials of each row.
    """

    def __init__(
        self,
        rows: int,
        units: list[int],
        classes: int,
        dropout: bool,
        activations: Sequence["InPlaceActivation"],
    ) -> None:
        self.layer_inputs: list[Floats] = []
        self.outputs = [floats(rows, count) for count in units]
        self.kept = [
            floats(*a.shape) if activation.needs_z else a
            for a, activation in zip(self.outputs, activations, strict=True)
        ]
        self.deltas = [floats(rows, count) for count in units]
        self.masks = [floats(rows, count) for count in units if dropout]
        self.dropped = [floats(rows, count) for count in units if dropout]
        self.zeros = [np.zeros((rows, count), np.float32) for count in units]
        self.positive = [np.empty((rows, count), np.bool_) for count in units]
        self.logits, self.output_delta = floats(classes, rows), floats(classes, rows)
        self.ones = np.ones(rows, np.float32)
        self.row_max, self.row_sums = floats(1, rows), floats(1, rows)


def floats(*shape: int) -> Floats:
    """Return an uninitialised float32 array."""
    return np.empty(shape, np.float32)


def sum_in_order(parts: Floats, out: Floats) -> None:
    """Sum over the first axis, always in the same order.

    A reduction of two parts takes four times as long as this.
    """
    np.copyto(out, parts[0])
    for part in parts[1:]:
        np.add(out, part, out=out)


def draw_mask(mask: Floats, keep: float, rng: np.random.Generator) -> None:
    """Fill the mask with 1 / `keep` where a unit is kept, at random, and 0 where it is dropped.

    Srivastava et al., Dropout (2014), in the inverted form, which preserves expected sums.
    """
    rng.random(dtype=np.float32, out=mask)
    np.less(mask, keep, out=mask)
    np.divide(mask, keep, out=mask)


def output_delta(network: Network, loss: str, scratch: Scratch, targets: Floats) -> float:
    """Leave the gradient of the loss with respect to the logits in `scratch.output_delta`.

    Args:
        network: Says what the output activation is.
        loss: A key of LOSSES.
        scratch: Holds the logits, which are overwritten.
        targets: Targets (classes, rows).

    Returns:
        The loss summed over the rows.
    """
    if (network.output_activation, loss) == ("softmax", "cross_entropy"):
        return _softmax_cross_entropy(scratch, targets)
    output, (forward, backward) = network.output_activation, LOSSES[loss]
    logits = scratch.logits.T
    probabilities = OUTPUT[output].forward(logits)
    np.copyto(scratch.output_delta.T, backward(output, probabilities, targets.T))
    return forward(output, logits, probabilities, targets.T) * len(logits)


def _softmax_cross_entropy(scratch: Scratch, targets: Floats) -> float:
    """Compute loss and delta together, since both need the same exponentials."""
    logits, delta = scratch.logits, scratch.output_delta
    np.maximum.reduce(logits, axis=0, out=scratch.row_max, keepdims=True)
    np.subtract(logits, scratch.row_max, out=logits)
    np.exp(logits, out=delta)
    np.add.reduce(delta, axis=0, out=scratch.row_sums, keepdims=True)
    np.divide(delta, scratch.row_sums, out=delta)
    np.subtract(delta, targets, out=delta)
    np.multiply(delta, 1 / len(scratch.ones), out=delta)
    np.log(scratch.row_sums, out=scratch.row_max)
    return float(np.dot(scratch.row_max[0], scratch.ones)) - float(np.vdot(targets, logits))


class InPlaceActivation(NamedTuple):
    """A hidden activation with its backward pass, both in place.

    Attributes:
        activate: Takes z and zeros of its shape, and overwrites z with the activation.
        backprop: Takes the gradient of the loss with respect to the activation, the activation
            (or z if `needs_z`) and a buffer of its shape, and overwrites the first with the
            gradient with respect to z.
        needs_z: Whether `backprop` takes z.
    """

    activate: Callable[[Floats, Floats], None]
    backprop: Callable[[Floats, Floats, Bools], None]
    needs_z: bool = False


def _relu(z: Floats, zeros: Floats) -> None:
    # NumPy takes three times as long with a number in place of the zeros.
    np.maximum(z, zeros, out=z)


def _relu_backward(grad: Floats, a: Floats, positive: Bools) -> None:
    np.greater(a, 0, out=positive)
    np.multiply(grad, positive, out=grad)


def _copying(name: str) -> InPlaceActivation:
    """Return the pure pair with its results copied: only ReLU gains from its own form."""
    forward, backward, needs_z = HIDDEN[name]

    def activate(z: Floats, zeros: Floats) -> None:
        np.copyto(z, forward(z))

    def backprop(grad: Floats, kept: Floats, positive: Bools) -> None:
        np.copyto(grad, backward(grad, kept))

    return InPlaceActivation(activate, backprop, needs_z)


ACTIVATIONS = {name: _copying(name) for name in HIDDEN}
ACTIVATIONS["relu"] = InPlaceActivation(_relu, _relu_backward)
