"""The rows of a dropped file, if they are as those of the first source."""

import numpy as np

from mlpserve_trainer.datasets.dataset import Dataset, Inputs, Labels, known_labels
from mlpserve_trainer.datasets.npz import PIXEL_MAXIMUM, LabelledRows, read_rows
from mlpserve_trainer.datasets.npz_reader import NpzReader
from mlpserve_trainer.errors import DataError

__all__ = ["check_header", "parsed"]


def parsed(reader: NpzReader, shown: str, first: Dataset) -> tuple[Inputs, Labels]:
    """Return the rows and labels of a file; raise DataError if they do not fit the first source."""
    check_header(reader, shown, first)
    # Of a drop of real inputs, as of any table, the values alone do not tell the kind.
    maximum = PIXEL_MAXIMUM if first.input_kind == "real" else first.input_maximum
    rows = read_rows(reader, shown, maximum)
    if first.input_kind == "real":
        return _real(shown, rows), known_labels(shown, rows.labels, first.class_names)
    _check_values(shown, first, rows)
    return rows.inputs, known_labels(shown, rows.labels, first.class_names)


def check_header(reader: NpzReader, shown: str, first: Dataset) -> None:
    """Refuse what does not fit the first source before it is inflated."""
    x, y = reader.header("X"), reader.header("y")
    if not x.shape or x.shape[1:] != first.input_shape:
        raise DataError(
            f"{shown}: expected rows of shape {first.input_shape}, as {first.name} has, "
            f"got X of shape {x.shape}"
        )
    if len(y.shape) == 1 and (not x.shape[0] or x.shape[0] != y.shape[0]):
        raise DataError(
            f"{shown}: expected a label for each row, got {x.shape[0]} rows and {y.shape[0]} labels"
        )


def _real(shown: str, rows: LabelledRows) -> Inputs:
    values: Inputs = rows.inputs.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{shown}: expected finite numbers in X; leave rows with others out")
    return values


def _check_values(shown: str, first: Dataset, rows: LabelledRows) -> None:
    if rows.input_kind == "real":
        low, high = rows.inputs.min(), rows.inputs.max()
        raise DataError(
            f"{shown}: expected X as {first.name} has it, whole numbers from 0 to "
            f"{first.input_maximum} or from 0 to 1 and no NaN, got {low:g} to {high:g}"
        )
    if rows.maximum != first.input_maximum:
        raise DataError(
            f"{shown}: expected maximum {first.input_maximum}, as {first.name} has, "
            f"got {rows.maximum}"
        )
    inputs = rows.inputs
    if inputs.dtype != first.inputs.dtype:
        kinds = {
            "uint8": f"whole numbers from 0 to {rows.maximum}",
            "float32": "fractions from 0 to 1",
        }
        wanted, got = kinds[str(first.inputs.dtype)], kinds[str(inputs.dtype)]
        raise DataError(f"{shown}: expected {wanted} in X, as {first.name} has, got {got}")
    if inputs.dtype == np.float32 and not (inputs.min() >= 0 and inputs.max() <= 1):
        raise DataError(f"{shown}: expected X from 0 to 1 and no NaN; scale or clean it")
