"""Split a data set into training, validation and holdout rows."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.network import scale_pixels
from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.dataset import Inputs, Labels
from mlpserve_trainer.datasets.rows import drawn_rows, rows_in_epoch
from mlpserve_trainer.datasets.scaling import Scaling, standardising
from mlpserve_trainer.errors import DataError

__all__ = ["Examples", "Split", "split", "stratified"]

HOLDOUT_FRACTION = 0.2
# Independent of the training seed, so that all versions are judged on the same rows.
SPLIT_SEED = 20
VALIDATION_SEED = 21

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs (n, *input_shape) as the data set has them, with labels (n,).

    `weights` (n,) say how often each row is drawn in an epoch; None for once.
    """

    inputs: Inputs
    labels: Labels
    input_maximum: float
    weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def rows_in_epoch(self) -> int:
        """The number of rows that one pass trains on."""
        return len(self) if self.weights is None else rows_in_epoch(self.weights)

    def order(self, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """Return the rows of one pass, in random order."""
        if self.weights is None:
            return rng.permutation(len(self))
        return rng.permutation(drawn_rows(self.weights, self.rows_in_epoch, rng))

    @property
    def is_image(self) -> bool:
        """Whether the inputs are uint8 images (height, width).

        Floats of that shape may be a table of measurements, which must not be rotated.
        """
        shape = self.inputs.shape[1:]
        return self.inputs.dtype == np.uint8 and len(shape) == 2 and min(shape) > 1

    def select(self, rows: npt.NDArray[Any] | slice) -> "Examples":
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Examples(self.inputs[rows], self.labels[rows], self.input_maximum, weights)

    def concat(self, others: "Examples") -> "Examples":
        """Return these rows and the others after them."""
        inputs: Any = np.concatenate([self.inputs, others.inputs])
        labels = np.concatenate([self.labels, others.labels])
        return Examples(inputs, labels, self.input_maximum)

    def scaled(self, rows: npt.NDArray[Any] | slice = slice(None)) -> npt.NDArray[np.float32]:
        """Return the inputs of some rows as the network takes them: (n, inputs).

        Pixels reach from 0 to 1, real inputs are as they are.
        """
        chosen: npt.NDArray[Any] = self.inputs[rows].reshape(-1, self.inputs[0].size)
        if chosen.dtype == np.uint8:
            return scale_pixels(chosen, self.input_maximum)
        return chosen.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts of a data set, and a description of the split.

    `scaling` is what real inputs are standardised by before they are trained on.
    """

    training: Examples
    validation: Examples
    holdout: Examples
    description: str
    scaling: Scaling | None = None


def split(data: Dataset, validation_fraction: float) -> Split:
    """Split a data set as its publisher did, or else 80/20 within each class.

    Validation rows are taken from the training rows, and the holdout is never trained on. Added
    rows do not change the holdout: all of them go to the training rows, except those whose inputs
    are in the holdout too.

    Args:
        data: The data set.
        validation_fraction: Fraction of the training rows of each class, from 0 to 1.

    Raises:
        DataError: There are too few rows for three parts, or a column of real inputs is constant.

    """
    everything = Examples(data.inputs, data.labels, data.input_maximum)
    own = len(data.labels) - data.added
    first, added = everything.select(slice(own)), everything.select(slice(own, None))
    if data.training_rows is not None:
        rest = first.select(slice(data.training_rows))
        holdout = first.select(slice(data.training_rows, None))
        description = "official"
    else:
        rows, held = stratified(first.labels, HOLDOUT_FRACTION, SPLIT_SEED)
        rest, holdout = first.select(rows), first.select(held)
        description = f"stratified 80/20, seed {SPLIT_SEED}"
    if data.added:
        added = _unseen(added, holdout)
        rest = rest.concat(added)
        description += f", {len(added)} rows added to training"
    rows, watched = stratified(rest.labels, validation_fraction, VALIDATION_SEED)
    parts = Split(rest.select(rows), rest.select(watched), holdout, description)
    if not (len(parts.training) and len(parts.validation) and len(holdout)):
        raise DataError(
            f"{data.source}: {len(data.labels)} rows of {len(data.class_names)} classes are too "
            "few to train, validate and judge: at least 3 rows of some class are needed"
        )
    if data.input_kind == "real":
        scaling = standardising(
            plain(data.source or data.name), parts.training.inputs, data.columns
        )
        return replace(parts, scaling=scaling)
    return parts


def _unseen(added: Examples, holdout: Examples) -> Examples:
    """Return the added rows whose inputs are not in the holdout."""
    held_out = {row.tobytes() for row in holdout.inputs}
    fresh = np.array([row.tobytes() not in held_out for row in added.inputs], dtype=bool)
    if not fresh.all():
        logger.warning(
            "added rows left out, since they are test rows", extra={"rows": int((~fresh).sum())}
        )
    return added.select(fresh)


def stratified(labels: Labels, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows that stay and the rows that are taken out, both in ascending order.

    A fraction of each class is taken out, rounded, but at least one row of a class with two or
    more, and never all of them.

    Args:
        labels: (n,) class indices.
        fraction: The fraction, from 0 to 1.
        seed: Seed of the random choice.

    """
    rng = np.random.default_rng(seed)
    taken = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        taken[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)
