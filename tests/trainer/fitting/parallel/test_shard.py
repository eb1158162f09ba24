import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_model import Network, initialise, loss_and_gradients
from mlpserve_trainer import Recipe
from mlpserve_trainer.fitting.parallel.lockstep import in_turns
from mlpserve_trainer.fitting.parallel.shard import TURNS, Board, Part, layers_of

RNG = np.random.default_rng(1)
INPUTS = RNG.random((30, 12), dtype=np.float32)
TARGETS = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 30)]
EVERY_KIND = list(
    itertools.product(
        ("relu", "sigmoid", "tanh"),
        ("softmax", "sigmoid"),
        ("cross_entropy", "mean_squared_error"),
    )
)


def vector_of(network: Network) -> npt.NDArray[np.float32]:
    layers = initialise(network, np.random.default_rng(2))
    return np.concatenate([array.ravel() for layer in layers for array in layer])


class Whole:
    """A network cut into parts that pass over the same rows on one thread."""

    def __init__(
        self, network: Network, vector: npt.NDArray[np.float32], recipe: Recipe, members: int = 1
    ) -> None:
        self.network, self.vector, self.members = network, vector, members
        self.parts = [Part(network, recipe, member, members) for member in range(members)]
        self.gradient = np.zeros_like(vector)

    def run(self, inputs: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> float:
        """Leave the gradient of the mean loss of the rows; return the mean loss."""
        board = Board(self.network, self.members, len(inputs), together=True)
        losses: list[float] = []
        for turn in range(TURNS):
            board.inputs[0][turn][:] = inputs
            losses.clear()
            in_turns([self._pass(part, board, turn, targets, losses) for part in self.parts])
        assert len(set(losses)) == 1
        return losses[0] / len(inputs)

    def _pass(
        self,
        part: Part,
        board: Board,
        turn: int,
        targets: npt.NDArray[np.float32],
        losses: list[float],
    ) -> Iterator[None]:
        part.weights[:] = self.vector[part.positions]
        yield from part.forward(board, turn, np.random.default_rng(3))
        yield
        losses.append((yield from part.backward(board, turn, targets.T)))
        self.gradient[part.positions] = part.gradient


def test_layers_are_views_of_the_vector_in_the_order_of_the_file() -> None:
    network = Network((3, 2, 2))
    vector = np.arange(14, dtype=np.float32)
    (w1, b1), (w2, b2) = layers_of(network, vector)
    np.testing.assert_array_equal(w1, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(b1, [6, 7])
    np.testing.assert_array_equal(w2, [[8, 9], [10, 11]])
    b2[1] = 99
    assert vector[13] == 99


@pytest.mark.parametrize(("hidden", "output", "loss"), EVERY_KIND)
@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("between", [(), (9,), (9, 7), (9, 6, 5)], ids=str)
def test_the_fast_step_computes_what_the_textbook_one_does(
    hidden: str, output: str, loss: str, members: int, between: tuple[int, ...]
) -> None:
    network = Network((12, *between, 4), hidden, output)
    whole = Whole(network, vector_of(network), Recipe(loss=loss), members)
    weights = layers_of(network, whole.vector)
    expected_loss, expected = loss_and_gradients(network, weights, INPUTS, TARGETS, loss)
    assert whole.run(INPUTS, TARGETS) == pytest.approx(expected_loss, rel=1e-5)
    for ours, theirs in zip(layers_of(network, whole.gradient), expected, strict=True):
        np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.b, theirs.b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_every_weight_has_one_owner(members: int) -> None:
    network = Network((12, 9, 7, 4))
    parts = [Part(network, Recipe(), member, members) for member in range(members)]
    owned = np.concatenate([part.positions for part in parts])
    np.testing.assert_array_equal(np.sort(owned), np.arange(network.parameters))


def test_a_part_serves_batches_of_any_size() -> None:
    network = Network((12, 9, 4))
    whole = Whole(network, vector_of(network), Recipe(), members=2)
    for rows in (30, 7, 1, 30):
        whole.run(INPUTS[:rows], TARGETS[:rows])
        weights = layers_of(network, whole.vector)
        _, expected = loss_and_gradients(network, weights, INPUTS[:rows], TARGETS[:rows])
        ours = layers_of(network, whole.gradient)
        np.testing.assert_allclose(ours[0].w, expected[0].w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("hidden", "between"), [("relu", (9,)), ("tanh", (9,)), ("tanh", (9, 8))])
@pytest.mark.parametrize("members", [1, 2])
def test_the_gradient_with_dropout_is_that_of_the_thinned_network(
    hidden: str, between: tuple[int, ...], members: int
) -> None:
    network = Network((12, *between, 4), hidden)
    vector = vector_of(network)
    whole = Whole(network, vector, Recipe(dropout=0.4), members)
    whole.run(INPUTS, TARGETS)
    gradient = whole.gradient.copy()
    for index in (5, 100, len(vector) - 20, len(vector) - 2):
        losses = []
        for change in (1e-2, -2e-2):
            vector[index] += change
            losses.append(whole.run(INPUTS, TARGETS))
        vector[index] += 1e-2
        slope = (losses[0] - losses[1]) / 2e-2
        assert gradient[index] == pytest.approx(slope, rel=0.05, abs=2e-4)


def test_dropout_silences_its_share_and_strengthens_the_rest() -> None:
    network = Network((1, 20_000, 2))
    vector = np.ones(network.parameters, np.float32)
    whole = Whole(network, vector, Recipe(dropout=0.25))
    whole.run(np.ones((1, 1), np.float32), np.eye(2, dtype=np.float32)[:1])
    # Both classes are equally likely here, so the gradient is half of what each unit gave: 2.
    given = layers_of(network, whole.gradient)[1].w[:, 1] * 2
    assert np.unique(given) == pytest.approx([0, 2 / 0.75])
    assert (given > 0).mean() == pytest.approx(0.75, abs=0.02)
