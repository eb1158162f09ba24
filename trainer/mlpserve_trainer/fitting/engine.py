"""The seam between the training loop and the arithmetic of its steps.

`fit` decides which rows form a batch and at which learning rate; an engine turns each batch into a
step of the optimizer. `SequentialEngine` is the textbook's form, `ParallelEngine` the fast one.
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import Network
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["Batch", "Engine", "EngineFactory", "smoothed_targets"]


class Batch(NamedTuple):
    """The input of one training step.

    Attributes:
        rows: Indices (n,) into the training examples.
        labels: Their labels (n,).
        step: Number of the step, counted from 1 over the whole training.
        learning_rate: Learning rate of this step.
    """

    rows: npt.NDArray[np.intp]
    labels: npt.NDArray[np.int64]
    step: int
    learning_rate: float


class Engine(Protocol):
    """Takes training steps; the state that it was created with holds their result."""

    def run(
        self, batches: Sequence[Batch], seeds: np.random.SeedSequence
    ) -> Generator[float, None, object]:
        """Take one step for each batch of an epoch, and yield its loss.

        The engine receives all batches at once because it may load the next one while it computes
        a step. The state is complete when the generator is exhausted; closing the generator
        earlier abandons the epoch.

        Args:
            batches: One batch for each step.
            seeds: Source of the random streams of augmentation and dropout.

        Yields:
            The loss summed over the rows of the batch, as computed before the step.
        """
        ...


EngineFactory: TypeAlias = Callable[[Network, Recipe, Examples, TrainingState], Engine]


def smoothed_targets(classes: int, smoothing: float) -> npt.NDArray[np.float32]:
    """Return the targets (classes, classes), one row for each class.

    A target is 1 - `smoothing` for the class, plus `smoothing` spread evenly over all classes:
    Szegedy et al., Rethinking the Inception architecture (2016), section 7.
    """
    targets = np.full((classes, classes), smoothing / classes, dtype=np.float32)
    np.fill_diagonal(targets, 1 - smoothing + smoothing / classes)
    return targets
