"""The real MNIST, for the tests that need it."""

import os
from pathlib import Path

import pytest

from mlpserve_trainer.datasets import DataLocations, load
from mlpserve_trainer.datasets.split import Split, split

__all__ = ["MNIST", "load_mnist", "needs_mnist"]

_DEFAULT = Path(__file__).parents[3] / "shared" / "data" / "mnist"
MNIST = Path(os.environ.get("MLPSERVE_DATA_DIR") or _DEFAULT)

needs_mnist = pytest.mark.skipif(
    not (MNIST / "train-images-idx3-ubyte.gz").exists(),
    reason=f"no MNIST files in {MNIST}: set MLPSERVE_DATA_DIR",
)


def load_mnist() -> Split:
    """Return the official images: 57,000 to train on, 3,000 to validate, 10,000 as holdout."""
    return split(load("mnist", DataLocations(MNIST, MNIST)), 0.05)
