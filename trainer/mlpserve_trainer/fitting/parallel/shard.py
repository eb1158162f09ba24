"""Forward and backward at speed: each part owns some units, and buffers are made once.

Hidden layers are cut by their units, the last layer by its inputs. So every weight has one owner,
and nobody else needs its gradient or its optimizer's memory; a network with one hidden layer
exchanges nothing but its parts of the logits, once a step. (Shoeybi et al., Megatron-LM (2019),
cut layers in the same way for larger machines.)

`mlpserve_model.loss_and_gradients` is the textbook's form of the same computation, and the
test's measure of this one.
"""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from mlpserve_model.nn.losses import LOSSES
from mlpserve_model.nn.network import Layer, Network, Weights
from mlpserve_model.nn.types import Array
from mlpserve_trainer.fitting.parallel.lockstep import shared
from mlpserve_trainer.recipe import Recipe

__all__ = ["TURNS", "Board", "Part", "layers_of"]

Floats = npt.NDArray[np.float32]

# Buffers that others read exist three times, and steps take them in turn: one part may be filling
# those of the next step while another has not done with those of the last.
TURNS = 3


def layers_of(network: Network, vector: Array) -> Weights:
    """Return the layers as views into one vector (parameters,): w1, b1, w2, b2, ..."""
    layers, start = [], 0
    for inputs, units in network.layer_shapes:
        middle, end = start + inputs * units, start + (inputs + 1) * units
        layers.append(Layer(vector[start:middle].reshape(inputs, units), vector[middle:end]))
        start = end
    return tuple(layers)


class Board:
    """What the parts of a network show each other in a pass over `rows` rows.

    * `inputs`: of each part and turn, (rows, inputs), filled before `forward`. With `together` all
      parts have the same, and each may fill some of it. Without, each has one of its own for all
      turns: memory that another core has touched takes longer to read and to write.
    * `activations`, `deltas`: of each hidden layer but the last and each turn, (rows, units) put
      together, and (parts, rows, units) to be summed.
    * `logits`: of each turn, (parts, classes, rows), to be summed.
    """

    def __init__(self, network: Network, parts: int, rows: int, together: bool) -> None:
        self.rows = rows
        if together:
            self.inputs = [list(shared(TURNS, rows, network.inputs))] * parts
        else:
            self.inputs = [[_floats(rows, network.inputs)] * TURNS for _ in range(parts)]
        between = network.layer_sizes[1:-2]
        self.activations = [list(shared(TURNS, rows, units)) for units in between]
        self.deltas = [list(shared(TURNS, parts, rows, units)) for units in between]
        self.logits = list(shared(TURNS, parts, network.classes, rows))


class Part:
    """The weights that one member of a team owns, and their gradient.

    * `inputs`: what it is given of the network's inputs, in this order; all, if not said.
    * `positions`: (own,) where they are in the vector of all parameters, as in `layers_of`.
    * `weights`: (own,) to be filled and changed by the caller; other processes see them.
    * `gradient`: (own,) where `backward` leaves that of a batch's mean loss.

    A pass is `forward`, a meeting, `backward`; both yield where all parts have to come that far.
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
        places = list(layers_of(network, np.arange(network.parameters, dtype=np.float64)))
        if inputs is not None:
            places[0] = Layer(places[0].w[inputs], places[0].b)
        self._own = [_share(len(w), member, members) for w, _ in places]
        pieces = [
            piece
            for (w, b), own in zip(places[:-1], self._own[1:], strict=True)
            for piece in (w[:, own], b[own])
        ]
        # Only the first part adds the last layer's biases.
        pieces += [places[-1].w[self._own[-1]], places[-1].b[: 0 if member else None]]
        self.positions = np.concatenate([piece.ravel() for piece in pieces]).astype(np.intp)
        self.weights = shared(len(self.positions))
        self.gradient = np.zeros(len(self.positions), np.float32)
        self._layers = _layers_like(pieces, self.weights)
        self._gradients = _layers_like(pieces, self.gradient)
        self._activate, self._take_back = IN_PLACE[network.hidden_activation]
        self._scratch: dict[int, _Scratch] = {}

    def forward(
        self, board: Board, turn: int, rng: np.random.Generator, zeros: int = 0
    ) -> Iterator[None]:
        """Go from the inputs to this part's share of the logits.

        `rng` is of the dropout. Where the first `zeros` inputs are 0 in all of these rows, they
        need no computing in the first of several layers.
        """
        scratch = self._scratch_for(board.rows)
        fed, scratch.fed = board.inputs[self._member][turn][:, zeros:], []
        for level, (w, b) in enumerate(self._layers[:-1]):
            scratch.fed.append(fed)
            a = scratch.outputs[level]
            np.matmul(fed, w[-fed.shape[1] :], out=a)  # np.dot would copy a part of the inputs
            np.add(a, b, out=a)
            self._activate(a, scratch.zeros[level])
            fed = self._thinned(scratch, level, rng) if self._recipe.dropout else a
            if level < len(board.activations):
                whole = board.activations[level][turn]
                whole[:, self._own[level + 1]] = fed
                yield
                fed = whole
        w, b = self._layers[-1]
        scratch.fed.append(fed if len(self._layers) > 1 else fed[:, self._own[0]])
        logits = board.logits[turn][self._member]
        # Classes first: what follows goes along the rows, where NumPy is fast.
        np.dot(w.T, scratch.fed[-1].T, out=logits)
        if len(b):
            np.add(logits, b[:, np.newaxis], out=logits)

    def backward(self, board: Board, turn: int, targets: Floats) -> Generator[None, None, float]:
        """Leave the gradient of the mean loss against `targets` (classes, rows).

        Returns the sum of the losses of the rows.
        """
        scratch, own = self._scratch_for(board.rows), self._own
        _sum(board.logits[turn], scratch.logits)
        loss = _output_delta(self._network, self._recipe.loss, scratch, targets)
        last = self._gradients[-1]
        np.dot(scratch.fed[-1].T, scratch.output_delta.T, out=last.w)
        if len(last.b):
            np.dot(scratch.output_delta, scratch.ones, out=last.b)
        above = scratch.output_delta.T
        for level in range(len(self._layers) - 2, -1, -1):
            delta, w_above = scratch.deltas[level], self._layers[level + 1].w
            if level < len(board.deltas):
                shares = board.deltas[level][turn]
                np.dot(above, w_above.T, out=shares[self._member])
                yield
                _sum(shares[:, :, own[level + 1]], delta)
            else:
                np.dot(above, w_above.T, out=delta)
            if self._recipe.dropout:
                np.multiply(delta, scratch.kept[level], out=delta)
            self._take_back(delta, scratch.outputs[level], scratch.positive[level])
            fed, gradient = scratch.fed[level], self._gradients[level]
            np.matmul(fed.T, delta, out=gradient.w[-fed.shape[1] :])
            gradient.w[: -fed.shape[1]] = 0
            np.dot(scratch.ones, delta, out=gradient.b)
            above = delta
        return loss

    def _thinned(self, scratch: "_Scratch", level: int, rng: np.random.Generator) -> Floats:
        kept, dropped = scratch.kept[level], scratch.dropped[level]
        _draw_kept(kept, 1 - self._recipe.dropout, rng)
        np.multiply(scratch.outputs[level], kept, out=dropped)
        return dropped

    def _scratch_for(self, rows: int) -> "_Scratch":
        if rows not in self._scratch:
            units = [len(layer.b) for layer in self._layers[:-1]]
            classes = self._network.classes
            self._scratch[rows] = _Scratch(rows, units, classes, self._recipe.dropout > 0)
        return self._scratch[rows]


class _Scratch:
    """One part's own buffers for a pass: of each hidden layer (rows, units), and of the last."""

    def __init__(self, rows: int, units: list[int], classes: int, dropout: bool) -> None:
        self.fed: list[Floats] = []
        self.outputs = [_floats(rows, count) for count in units]
        self.deltas = [_floats(rows, count) for count in units]
        self.kept = [_floats(rows, count) for count in units if dropout]
        self.dropped = [_floats(rows, count) for count in units if dropout]
        self.zeros = [np.zeros((rows, count), np.float32) for count in units]
        self.positive = [np.empty((rows, count), np.bool_) for count in units]
        self.logits, self.output_delta = _floats(classes, rows), _floats(classes, rows)
        self.ones = np.ones(rows, np.float32)
        self.top, self.sums = _floats(1, rows), _floats(1, rows)


def _floats(*shape: int) -> Floats:
    return np.empty(shape, np.float32)


def _sum(shares: Floats, out: Floats) -> None:
    """Add up, always in the same order; a reduction takes four times as long for two."""
    np.copyto(out, shares[0])
    for share in shares[1:]:
        np.add(out, share, out=out)


def _share(units: int, member: int, members: int) -> slice:
    return slice(units * member // members, units * (member + 1) // members)


def _layers_like(pieces: list[Array], vector: Floats) -> Weights:
    """Return views into the vector, one after the other, of the shapes of the pieces."""
    ends = np.cumsum([piece.size for piece in pieces])
    views = [
        part.reshape(piece.shape)
        for part, piece in zip(np.split(vector, ends[:-1]), pieces, strict=True)
    ]
    return tuple(Layer(w, b) for w, b in zip(views[::2], views[1::2], strict=True))


def _draw_kept(kept: Floats, share: float, rng: np.random.Generator) -> None:
    """Silence units at random and strengthen the rest, so that the sum is expected to stay.

    Srivastava et al., Dropout (2014), in the inverted form.
    """
    rng.random(dtype=np.float32, out=kept)
    np.less(kept, share, out=kept)
    np.divide(kept, share, out=kept)


def _output_delta(network: Network, loss: str, scratch: _Scratch, targets: Floats) -> float:
    """Leave dL/dz of the last layer in `output_delta`; return the sum of the losses."""
    if (network.output_activation, loss) == ("softmax", "cross_entropy"):
        return _softmax_cross_entropy(scratch, targets)
    output, (forward, backward) = network.output_activation, LOSSES[loss]
    logits = scratch.logits.T
    probabilities = OUTPUT[output].forward(logits)
    np.copyto(scratch.output_delta.T, backward(output, probabilities, targets.T))
    return forward(output, logits, probabilities, targets.T) * len(logits)


def _softmax_cross_entropy(scratch: _Scratch, targets: Floats) -> float:
    """The two in one, since both need the same exponentials; the logits are used up."""
    logits, delta = scratch.logits, scratch.output_delta
    np.maximum.reduce(logits, axis=0, out=scratch.top, keepdims=True)
    np.subtract(logits, scratch.top, out=logits)
    np.exp(logits, out=delta)
    np.add.reduce(delta, axis=0, out=scratch.sums, keepdims=True)
    np.divide(delta, scratch.sums, out=delta)
    np.subtract(delta, targets, out=delta)
    np.multiply(delta, 1 / len(scratch.ones), out=delta)
    np.log(scratch.sums, out=scratch.top)
    return float(np.dot(scratch.top[0], scratch.ones)) - float(np.vdot(targets, logits))


def _relu(z: Floats, zeros: Floats) -> None:
    # NumPy takes three times as long with a number in place of the zeros.
    np.maximum(z, zeros, out=z)


def _relu_backward(grad: Floats, a: Floats, positive: npt.NDArray[np.bool_]) -> None:
    np.greater(a, 0, out=positive)
    np.multiply(grad, positive, out=grad)


Activate = Callable[[Floats, Floats], None]
TakeBack = Callable[[Floats, Floats, npt.NDArray[np.bool_]], None]


def _in_place(name: str) -> tuple[Activate, TakeBack]:
    """The textbook's pair with its results copied; only ReLU is worth more."""
    forward, backward = HIDDEN[name]

    def activate(z: Floats, zeros: Floats) -> None:
        np.copyto(z, forward(z))

    def take_back(grad: Floats, a: Floats, positive: npt.NDArray[np.bool_]) -> None:
        np.copyto(grad, backward(grad, a))

    return activate, take_back


IN_PLACE: dict[str, tuple[Activate, TakeBack]] = {
    "relu": (_relu, _relu_backward),
    "sigmoid": _in_place("sigmoid"),
    "tanh": _in_place("tanh"),
}
