"""Forward and backward at speed: buffers made once, every product written where it is wanted.

`mlpserve_model.loss_and_gradients` is the textbook's form of the same computation, and the
test's measure of this one.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mlpserve_model.activations import HIDDEN, OUTPUT
from mlpserve_model.losses import LOSSES
from mlpserve_model.network import Layer, Network, Weights
from mlpserve_trainer.recipe import Recipe

__all__ = ["Shard", "layers_of"]

Floats = npt.NDArray[np.float32]


def layers_of(network: Network, vector: Floats) -> Weights:
    """Return the layers as views into one vector (parameters,): w1, b1, w2, b2, ..."""
    layers, start = [], 0
    for inputs, units in network.layer_shapes:
        middle, end = start + inputs * units, start + (inputs + 1) * units
        layers.append(Layer(vector[start:middle].reshape(inputs, units), vector[middle:end]))
        start = end
    return tuple(layers)


class Shard:
    """One part of a batch, with the buffers for its passes.

    * `gradient`: (parameters,) where `run` leaves the gradient.
    * `inputs`: (rows, inputs) where `run` finds the inputs.
    """

    def __init__(self, network: Network, weights: Weights, recipe: Recipe, rows: int) -> None:
        self.gradient = np.zeros(network.parameters, np.float32)
        self.inputs = np.empty((rows, network.inputs), np.float32)
        self._network, self._weights, self._recipe = network, weights, recipe
        self._gradients = layers_of(network, self.gradient)
        units = network.layer_sizes[1:]
        self._outputs = [np.empty((rows, count), np.float32) for count in units]
        self._deltas = [np.empty((rows, count), np.float32) for count in units]
        hidden = units[:-1] if recipe.dropout else ()
        self._kept = [np.empty((rows, count), np.float32) for count in hidden]
        self._dropped = [np.empty((rows, count), np.float32) for count in hidden]
        self._ones = np.ones(rows, np.float32)

    def run(self, targets: Floats, batch_rows: int, rng: np.random.Generator) -> float:
        """Leave the gradient of the batch's mean loss, as far as these rows make it.

        * `targets`: (n, classes) for the first n rows of `inputs`.
        * `batch_rows`: how many rows the mean is over, with the other parts.
        * `rng`: of the dropout.

        Returns the sum of the losses of these rows.
        """
        rows = len(targets)
        if rows == 0:
            self.gradient.fill(0)
            return 0.0
        outputs, deltas = _first(rows, self._outputs), _first(rows, self._deltas)
        fed = [self.inputs[:rows], *(_first(rows, self._dropped) or outputs[:-1])]
        self._forward(fed, outputs, rng)
        network, loss = self._network, self._recipe.loss
        loss_sum = _output_delta(network, loss, outputs[-1], targets, batch_rows, deltas[-1])
        self._backward(fed, outputs, deltas)
        return loss_sum

    def _forward(self, fed: list[Floats], outputs: list[Floats], rng: np.random.Generator) -> None:
        """Fill what each layer is fed and gives; the last layer's output stays logits."""
        activate = IN_PLACE[self._network.hidden_activation][0]
        for index, (w, b) in enumerate(self._weights):
            output = outputs[index]
            np.dot(fed[index], w, out=output)
            np.add(output, b, out=output)
            if index + 1 < len(fed):
                activate(output)
                if self._dropped:
                    kept = self._kept[index][: len(output)]
                    _draw_kept(kept, 1 - self._recipe.dropout, rng)
                    np.multiply(output, kept, out=fed[index + 1])

    def _backward(self, fed: list[Floats], outputs: list[Floats], deltas: list[Floats]) -> None:
        """Turn the last delta into all gradients, layer by layer."""
        take_back = IN_PLACE[self._network.hidden_activation][1]
        for index in range(len(fed) - 1, -1, -1):
            delta, gradient = deltas[index], self._gradients[index]
            np.dot(fed[index].T, delta, out=gradient.w)
            np.dot(self._ones[: len(delta)], delta, out=gradient.b)
            if index > 0:
                below = deltas[index - 1]
                np.dot(delta, self._weights[index].w.T, out=below)
                if self._dropped:
                    np.multiply(below, self._kept[index - 1][: len(delta)], out=below)
                take_back(below, outputs[index - 1])


def _first(rows: int, buffers: list[Floats]) -> list[Floats]:
    return [buffer[:rows] for buffer in buffers]


def _draw_kept(kept: Floats, share: float, rng: np.random.Generator) -> None:
    """Silence units at random and strengthen the rest, so that the sum is expected to stay.

    Srivastava et al., Dropout (2014), in the inverted form.
    """
    rng.random(dtype=np.float32, out=kept)
    np.less(kept, share, out=kept)
    np.divide(kept, share, out=kept)


def _output_delta(
    network: Network, loss: str, logits: Floats, targets: Floats, batch_rows: int, delta: Floats
) -> float:
    """Leave dL/dz of the last layer in `delta`; return the sum of the losses of the rows."""
    if (network.output_activation, loss) == ("softmax", "cross_entropy"):
        return _softmax_cross_entropy(logits, targets, batch_rows, delta)
    output, (forward, backward) = network.output_activation, LOSSES[loss]
    probabilities = OUTPUT[output].forward(logits)
    share = len(targets) / batch_rows
    np.multiply(backward(output, probabilities, targets), share, out=delta)
    return forward(output, logits, probabilities, targets) * len(targets)


def _softmax_cross_entropy(
    logits: Floats, targets: Floats, batch_rows: int, delta: Floats
) -> float:
    """The two in one, since both need the same exponentials; `logits` is used up."""
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=logits)
    np.exp(logits, out=delta)
    sums = delta.sum(axis=1, keepdims=True)
    loss = float(np.log(sums).sum()) - float(np.vdot(targets, logits))
    np.divide(delta, sums, out=delta)
    np.subtract(delta, targets, out=delta)
    np.multiply(delta, 1 / batch_rows, out=delta)
    return loss


def _relu(z: Floats) -> None:
    np.maximum(z, 0, out=z)


def _relu_backward(grad: Floats, a: Floats) -> None:
    np.multiply(grad, a > 0, out=grad)


def _in_place(name: str) -> tuple[Callable[[Floats], None], Callable[[Floats, Floats], None]]:
    """The textbook's pair with its results copied; only ReLU is worth more."""
    forward, backward = HIDDEN[name]

    def activate(z: Floats) -> None:
        np.copyto(z, forward(z))

    def take_back(grad: Floats, a: Floats) -> None:
        np.copyto(grad, backward(grad, a))

    return activate, take_back


IN_PLACE = {
    "relu": (_relu, _relu_backward),
    "sigmoid": _in_place("sigmoid"),
    "tanh": _in_place("tanh"),
}
