"""A labelled data set, checked when it is made, whatever source it came from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model import InputValues
from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.scaling import column_name
from mlpserve_trainer.errors import DataError

__all__ = [
    "Dataset",
    "Inputs",
    "Labels",
    "Provenance",
    "encode_labels",
    "known_labels",
    "rows_digest",
]

Inputs = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Provenance:
    """One of several sources of a data set, as it goes into the manifest.

    * `name`: as it was asked for.
    * `digest`: of its rows, as `Dataset.digest`.
    * `rows`: how many it gave.
    * `files`: name and sha256 of each, for a folder of files; None when they are too many to list.
    """

    name: str
    digest: str
    rows: int
    files: tuple[dict[str, str], ...] | None = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled inputs, checked when they are constructed.

    * `name`: what the manifest calls it.
    * `inputs`: (n, *input_shape); uint8 from 0 to `input_maximum`, or float32: from 0 to 1 for
      pixels, any finite values for real inputs.
    * `labels`: (n,) int64, indices into `class_names`.
    * `class_names`: one name for each class, in the order of the network's outputs.
    * `input_maximum`: what uint8 inputs are divided by to reach 0 to 1.
    * `training_rows`: where an official split puts the first test row; None without one.
    * `source`: where the data came from, for people.
    * `is_fallback`: whether another data set was wanted and could not be had.
    * `added`: how many rows at the end are for training alone, whatever the split.
    * `origins`: the sources, where there are several.
    * `input_kind`: "pixels" or "real"; real inputs are rows of a table.
    * `columns`: the names of its columns, for messages; none if they have none.

    Raises DataError when the parts do not fit together or cannot be trained on.
    """

    name: str
    inputs: Inputs
    labels: Labels
    class_names: tuple[str, ...]
    input_maximum: int
    training_rows: int | None = None
    source: str = ""
    added: int = 0
    is_fallback: bool = False
    origins: tuple[Provenance, ...] = ()
    input_kind: str = "pixels"
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_values(self)
        _check_labels(self)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.inputs.shape[1:])

    def values(self) -> InputValues:
        """Return the kind and the range of the inputs."""
        is_raw = self.inputs.dtype == np.uint8
        low, high = float(self.inputs.min()), float(self.inputs.max())
        if self.input_kind == "real":
            return InputValues("real", low, high)
        one = self.input_maximum if is_raw else 1
        # The first row settles most data.
        if all(bool(((x == 0) | (x == one)).all()) for x in (self.inputs[0], self.inputs)):
            return InputValues("binary", low, high)
        return InputValues("raw" if is_raw else "scaled", low, high)

    def digest(self) -> str:
        """Return "sha256:<hex>" over dtype, shape and bytes of both arrays and the class names."""
        return rows_digest(self.inputs, self.labels, self.class_names)


def rows_digest(inputs: Inputs, labels: Labels, class_names: tuple[str, ...]) -> str:
    """Return "sha256:<hex>" over dtype, shape and bytes of both arrays and the class names."""
    sha256 = hashlib.sha256()
    for array in (inputs, labels):
        sha256.update(f"{array.dtype.str} {array.shape}\n".encode())
        sha256.update(np.ascontiguousarray(array).data)
    sha256.update(_joined(class_names).encode())
    return f"sha256:{sha256.hexdigest()}"


def _joined(names: tuple[str, ...]) -> str:
    """Return a text that no other names give: joined by newlines, or as JSON if one has a newline.

    Names are not empty, so the first kind never begins with a newline.
    """
    if any("\n" in name for name in names):
        return "\n" + json.dumps(names)
    return "\n".join(names)


def encode_labels(values: npt.NDArray[Any]) -> tuple[Labels, tuple[str, ...]]:
    """Turn labels of any kind into class indices and class names, sorted.

    * `values`: (n,) integers or strings.
    """
    distinct, indices = np.unique(values, return_inverse=True)
    return indices.astype(np.int64), tuple(str(value) for value in distinct)


def known_labels(name: str, values: npt.NDArray[Any], class_names: tuple[str, ...]) -> Labels:
    """Return the indices of labels in a given list of classes.

    * `name`: the source of the labels, for the error.
    * `values`: (n,) integers or strings, written as the class names.
    * `class_names`: the classes.

    Raises DataError that names the unknown labels.
    """
    distinct, indices = np.unique(values, return_inverse=True)
    known = {class_name: index for index, class_name in enumerate(class_names)}
    strangers = [str(value) for value in distinct if str(value) not in known]
    if strangers:
        raise DataError(
            f"{name}: unknown labels {_some(strangers)}; the classes are {_some(class_names)}"
        )
    wanted = [known[str(value)] for value in distinct]
    return np.array(wanted, dtype=np.int64)[indices]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _check_sizes(data: Dataset) -> None:
    rows = len(data.inputs)
    own = rows - data.added
    if rows == 0 or data.inputs.ndim < 2 or 0 in data.inputs.shape:
        raise DataError(
            f"data set {data.name} is empty: expected inputs of shape (rows, ...), "
            f"got {data.inputs.shape}"
        )
    if data.labels.shape != (rows,):
        raise DataError(
            f"data set {data.name} has {rows} images but labels of shape {data.labels.shape}: "
            "expected one label for each image"
        )
    if data.training_rows is not None and not 0 < data.training_rows < own:
        raise DataError(
            f"data set {data.name}: its training part has {data.training_rows} of {own} rows; "
            "both parts need at least one"
        )


def _check_values(data: Dataset) -> None:
    if data.input_kind == "real":
        _check_finite(data)
        return
    limit = data.input_maximum if data.inputs.dtype == np.uint8 else 1
    # A NaN makes both of these NaN, and no comparison with NaN holds.
    low, high = float(data.inputs.min()), float(data.inputs.max())
    if not (low >= 0 and high <= limit):
        raise DataError(
            f"data set {data.name}: expected {data.inputs.dtype} inputs from 0 to {limit} and no "
            f"NaN, got values from {low:g} to {high:g}; scale or clean them"
        )


def _check_finite(data: Dataset) -> None:
    """Raise DataError naming the first column with a missing value."""
    if np.isfinite(data.inputs).all():
        return
    row, column = (int(place) for place in np.argwhere(~np.isfinite(data.inputs))[0])
    raise DataError(
        f"{plain(data.source or data.name)}: {column_name(data.columns, column)} has "
        f"{data.inputs[row, column]} in row {row}, expected finite numbers: leave such rows out, "
        "or fill them in"
    )


def _check_labels(data: Dataset) -> None:
    low, high = int(data.labels.min()), int(data.labels.max())
    classes = len(data.class_names)
    if len(set(data.class_names)) < classes or "" in data.class_names:
        raise DataError(
            f"data set {data.name}: expected class names that differ, none empty, "
            f"got {', '.join(map(repr, data.class_names))}"
        )
    if low < 0 or high >= classes:
        raise DataError(
            f"data set {data.name}: labels out of range: expected 0 to {classes - 1} "
            f"for {classes} classes, got {low} to {high}"
        )
    if len(np.unique(data.labels[: data.training_rows])) < 2:
        raise DataError(
            f"data set {data.name} has one class only, {data.class_names[data.labels[0]]!r}: "
            "training needs examples of at least two"
        )
