import itertools

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_model import Network, initialise, loss_and_gradients
from mlpserve_model.nn.activations import HIDDEN
from mlpserve_trainer import Recipe
from mlpserve_trainer.fitting.parallel.lockstep import BARRIER, Task, run_interleaved
from mlpserve_trainer.fitting.parallel.shard import SLOTS, Shard, SharedBuffers
from mlpserve_trainer.fitting.state import layers_of, vector_of

RNG = np.random.default_rng(1)
INPUTS = RNG.random((30, 12), dtype=np.float32)
TARGETS = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 30)]
EVERY_KIND = list(
    itertools.product(
        HIDDEN,
        ("softmax", "sigmoid"),
        ("cross_entropy", "mean_squared_error"),
    )
)


def initial(network: Network) -> npt.NDArray[np.float32]:
    return vector_of(initialise(network, np.random.default_rng(2))).astype(np.float32)


class Whole:
    """A network cut into shards that pass over the same rows in one process."""

    def __init__(
        self, network: Network, vector: npt.NDArray[np.float32], recipe: Recipe, members: int = 1
    ) -> None:
        self.network, self.vector, self.members = network, vector, members
        self.shards = [Shard(network, recipe, member, members) for member in range(members)]
        self.gradient = np.zeros_like(vector)
        self.losses: list[float] = []

    def run(self, inputs: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> float:
        """Leave the gradient of the mean loss of the rows; return the mean loss."""
        buffers = SharedBuffers(self.network, self.members, len(inputs), shared_inputs=True)
        for slot in range(SLOTS):
            buffers.inputs[0][slot][:] = inputs
            tasks = [self._pass(shard, buffers, slot, targets) for shard in self.shards]
            self.losses.clear()
            (loss,) = run_interleaved(tasks)
        assert len(set(self.losses)) == 1  # every shard knows the loss
        return loss / len(inputs)

    def _pass(
        self,
        shard: Shard,
        buffers: SharedBuffers,
        slot: int,
        targets: npt.NDArray[np.float32],
    ) -> Task:
        shard.weights[:] = self.vector[shard.positions]
        yield from shard.forward(buffers, slot, np.random.default_rng(3))
        yield BARRIER
        loss = yield from shard.backward(buffers, slot, targets.T)
        self.gradient[shard.positions] = shard.gradient
        self.losses.append(loss)
        yield loss


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
    network = Network.uniform((12, *between, 4), hidden, output)
    whole = Whole(network, initial(network), Recipe(loss=loss), members)
    weights = layers_of(network, whole.vector)
    expected_loss, expected = loss_and_gradients(network, weights, INPUTS, TARGETS, loss)
    assert whole.run(INPUTS, TARGETS) == pytest.approx(expected_loss, rel=1e-5)
    for ours, theirs in zip(layers_of(network, whole.gradient), expected, strict=True):
        np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.b, theirs.b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("members", [1, 2])
def test_each_layer_may_have_an_activation_of_its_own(members: int) -> None:
    network = Network((12, 9, 8, 7, 4), ("silu", "relu", "leaky_relu", "sigmoid"))
    whole = Whole(network, initial(network), Recipe(), members)
    weights = layers_of(network, whole.vector)
    expected_loss, expected = loss_and_gradients(network, weights, INPUTS, TARGETS)
    assert whole.run(INPUTS, TARGETS) == pytest.approx(expected_loss, rel=1e-5)
    for ours, theirs in zip(layers_of(network, whole.gradient), expected, strict=True):
        np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_every_weight_has_one_owner(members: int) -> None:
    network = Network((12, 9, 7, 4))
    shards = [Shard(network, Recipe(), member, members) for member in range(members)]
    owned = np.concatenate([shard.positions for shard in shards])
    np.testing.assert_array_equal(np.sort(owned), np.arange(network.parameters))


def test_a_shard_serves_batches_of_any_size() -> None:
    network = Network((12, 9, 4))
    whole = Whole(network, initial(network), Recipe(), members=2)
    for rows in (30, 7, 1, 30):
        whole.run(INPUTS[:rows], TARGETS[:rows])
        weights = layers_of(network, whole.vector)
        _, expected = loss_and_gradients(network, weights, INPUTS[:rows], TARGETS[:rows])
        ours = layers_of(network, whole.gradient)
        np.testing.assert_allclose(ours[0].w, expected[0].w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("hidden", "between"), [("relu", (9,)), ("tanh", (9,)), ("tanh", (9, 8)), ("gelu", (9, 8))]
)
@pytest.mark.parametrize("members", [1, 2])
def test_the_gradient_with_dropout_is_that_of_the_thinned_network(
    hidden: str, between: tuple[int, ...], members: int
) -> None:
    network = Network.uniform((12, *between, 4), hidden)
    vector = initial(network)
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
