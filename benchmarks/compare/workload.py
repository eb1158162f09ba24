"""What every server serves and is asked: one set of weights, one image, one batch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import (
    CHAMPION,
    DatasetInfo,
    Draft,
    Network,
    Signature,
    Store,
    Verdict,
    Weights,
    forward,
    initialise,
    scale_pixels,
)
from mlpserve_model.nn.network import logits
from mlpserve_model.store.evidence.reference import REFERENCE_FILE, Reference, signals

__all__ = ["BATCH_ROWS", "NETWORK", "Workload", "challenge", "make", "publish_small"]

BATCH_ROWS = 1000
NETWORK = Network((784, 128, 10))

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Workload:
    """The inputs and the answers that are right; the folder holds the weights in three forms."""

    folder: Path
    network: Network
    weights: Weights
    row: Float32  # (784,) in 0..1
    pixels: NDArray[np.uint8]  # (BATCH_ROWS, 784)
    row_answer: Float32  # (1, 10)
    batch_answer: Float32  # (BATCH_ROWS, 10)

    @property
    def npz(self) -> Path:
        """The weights for the Python peers."""
        return self.folder / "weights.npz"

    @property
    def raw(self) -> Path:
        """The weights for C++: the arrays one after another."""
        return self.folder / "weights.f32"

    @property
    def store(self) -> Path:
        """The weights as mlpserve stores them."""
        return self.folder / "store"

    def is_right(self, answer: NDArray[Any]) -> bool:
        """Whether these are the probabilities, for the row or for the batch."""
        expected = self.row_answer if answer.size == NETWORK.classes else self.batch_answer
        return answer.size == expected.size and np.allclose(
            answer.reshape(expected.shape), expected, rtol=0, atol=1e-5
        )


def make(folder: Path, network: Network = NETWORK) -> Workload:
    """Draw the weights and the inputs, and write what the servers read."""
    rng = np.random.default_rng(0)
    weights = initialise(network, rng)
    row = rng.random(784, dtype=np.float32)
    pixels = rng.integers(0, 256, (BATCH_ROWS, 784), dtype=np.uint8)
    workload = Workload(
        folder,
        network,
        weights,
        row,
        pixels,
        forward(network, weights, row[None]),
        forward(network, weights, scale_pixels(pixels, 255)),
    )
    _write(workload, rng.random((8, 784), dtype=np.float32))
    return workload


def challenge(folder: Path) -> None:
    """Publish other weights into the store, as challenger."""
    store, rng = Store(folder, "mnist"), np.random.default_rng(1)
    golden = rng.random((8, NETWORK.inputs), dtype=np.float32)
    version = store.publish(
        _draft(NETWORK), Verdict("PROMOTED"), initialise(NETWORK, rng), golden
    ).version
    store.move_alias("challenger", version, expected=None, event="promote", reason="benchmark")


def publish_small(folder: Path, count: int) -> None:
    """Publish that many small versions into the store."""
    network, rng = Network((NETWORK.inputs, NETWORK.classes)), np.random.default_rng(1)
    weights, golden = initialise(network, rng), rng.random((1, network.inputs), dtype=np.float32)
    store = Store(folder, "mnist")
    for _ in range(count):
        store.publish(_draft(network), Verdict("PROMOTED"), weights, golden)


def _write(workload: Workload, golden: Float32) -> None:
    arrays = {
        f"{name}{number}": array
        for number, layer in enumerate(workload.weights, 1)
        for name, array in layer._asdict().items()
    }
    np.savez(workload.npz, allow_pickle=False, **arrays)
    workload.raw.write_bytes(b"".join(a.astype("<f4").tobytes() for a in arrays.values()))
    store = Store(workload.store, "mnist")
    verdict, reference = Verdict("PROMOTED"), _reference(workload)
    version = store.publish(
        _draft(workload.network), verdict, workload.weights, golden, {REFERENCE_FILE: reference}
    ).version
    store.move_alias(CHAMPION, version, expected=None, event="promote", reason="benchmark")


def _reference(workload: Workload) -> bytes:
    x, answers = scale_pixels(workload.pixels, 255), workload.batch_answer
    rows = signals(x, logits(workload.network, workload.weights, x), answers)
    return Reference.of(rows, answers.argmax(axis=1), workload.network.classes).encode()


def _draft(network: Network) -> Draft:
    return Draft(
        model="mnist",
        network=network,
        signature=Signature((28, 28), 255, tuple("0123456789")),
        dataset=DatasetInfo("random", "sha256:0", "none"),
        recipe={},
        seed=0,
        libraries={},
        metrics={},
    )
