"""Data sets that people bring along: an .npz file with arrays X and y."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.format.npz_reader import ArrayHeader
from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.dataset import Inputs
from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.datasets.npz_reader import NpzReader
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import open_data

__all__ = [
    "PIXEL_MAXIMUM",
    "REAL_MAXIMUM",
    "LabelledRows",
    "check_size",
    "find_npz",
    "read_npz",
    "read_rows",
]

PIXEL_MAXIMUM = 255
REAL_MAXIMUM = 1  # of real inputs, which have none
# The largest code point, and the halves of UTF-16 pairs, which alone are no text.
LAST_CODE_POINT, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """What a file holds, before its labels are indices.

    Attributes:
        inputs: (n, ...); uint8 from 0 to `maximum`, or float32.
        labels: (n,) integers, booleans or strings; those of a text file as objects, for an array
            of strings has the length of the longest for each.
        maximum: what stands for 1.0 in uint8 inputs.
        says_maximum: whether the file gave the maximum itself.
        input_kind: "pixels", or "real": inputs (n, columns) of any values.
        columns: the names of the columns, if they have some.

    """

    inputs: Inputs
    labels: npt.NDArray[Any]
    maximum: int
    says_maximum: bool = False
    input_kind: str = "pixels"
    columns: tuple[str, ...] = ()


def find_npz(place: Path) -> Path:
    """Return the file itself, or the only .npz file of a folder.

    Raises:
        DataError: there is none, or more than one.

    """
    if not place.is_dir():
        return place
    files = sorted(place.glob("*.npz"))
    if len(files) != 1:
        raise DataError(f"{place}: expected an .npz file or a folder with one, found {len(files)}")
    return files[0]


def read_npz(path: Path) -> LabelledRows:
    """Read inputs X (n, ...), labels y (n,) and, where given, the scalar `maximum` of X.

    Raises:
        NotAnArchive: the file is not a whole .npz.
        DataError: its arrays are of a kind that cannot be trained on, or too large.

    """
    name = plain(str(path))
    with open_data(path) as stream:
        reader = NpzReader(stream, name)
        check_size(reader, name, memory_limit())
        return read_rows(reader, name, PIXEL_MAXIMUM)


def check_size(reader: NpzReader, name: str, limit: int) -> int:
    """Return how many bytes X and y take in memory, without inflating anything.

    A small file may hold a thousandfold of zeros.

    Raises:
        DataError: X or y is missing, or they take more than `limit` bytes.

    """
    if not {"X", "y"} <= set(reader.names):
        found = ", ".join(reader.names)[:200] or "none"
        raise DataError(f"{name}: expected arrays X and y, found {found}")
    x, y = reader.header("X"), reader.header("y")
    wide = x.dtype.itemsize > 1 and _is_table(x, reader)  # whole numbers beyond 255 become float32
    needed = x.size * (4 if wide else _target(x.dtype).itemsize) + y.nbytes
    if needed > limit:
        raise DataError(
            f"{name} needs {needed / 2**20:,.0f} MiB, expected at most {limit / 2**20:,.0f} MiB "
            "for this machine or container: cut it into several, or give it more memory"
        )
    return needed


def read_rows(reader: NpzReader, name: str, maximum: int) -> LabelledRows:
    """Read X, y and `maximum` of an open file that `check_size` has let pass.

    Whole numbers from 0 to `maximum` (as given here unless the file says otherwise) become uint8;
    fractions from 0 to 1 become float32; False and True are 0 and 1. Other values of a table X
    (n, columns) are real inputs, unless the file gives a maximum; other shapes have to be pixels.

    Raises DataError as `read_npz`.
    """
    says_maximum = "maximum" in reader.names
    if says_maximum:
        maximum = _read_maximum(reader, name)
    inputs = _read_inputs(reader, name, maximum)
    labels = _read_labels(reader, name)
    if _is_table(reader.header("X"), reader) and not _are_pixels(inputs):
        return LabelledRows(inputs, labels, REAL_MAXIMUM, says_maximum=True, input_kind="real")
    return LabelledRows(inputs, labels, maximum, says_maximum)


def _is_table(x: ArrayHeader, reader: NpzReader) -> bool:
    """Return True if X may hold real inputs."""
    return len(x.shape) == 2 and "maximum" not in reader.names


def _are_pixels(inputs: Inputs) -> bool:
    # No comparison with NaN holds.
    if inputs.dtype == np.uint8 or not inputs.size:
        return True
    return bool(inputs.min() >= 0 and inputs.max() <= 1)


def _read_maximum(reader: NpzReader, name: str) -> int:
    header = reader.header("maximum")
    got = f"{header.dtype} of shape {header.shape}"
    if header.size == 1 and header.dtype.kind in "uif":
        value = reader.array("maximum", header.nbytes).item()
        if 1 <= value <= PIXEL_MAXIMUM and value == int(value):
            return int(value)
        got = f"{value:g}"
    raise DataError(f"{name}: expected maximum to be one number from 1 to 255, got {got}")


def _target(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that values of a type are read into."""
    return np.dtype(np.uint8 if dtype.kind in "ui" else np.float32)


def _read_inputs(reader: NpzReader, name: str, maximum: int) -> Inputs:
    header = reader.header("X")
    if header.dtype.kind not in "buif":
        raise DataError(f"{name}: expected numbers in X, got {header.dtype}")
    values: Any = np.empty(header.size, _target(header.dtype))
    may_be_real = _is_table(header, reader)
    whole, low, high, start = True, np.inf, -np.inf, 0
    for chunk in reader.chunks("X"):
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
        if header.dtype.kind in "ui" and not (low >= 0 and high <= maximum):
            _check_whole(name, low, high, maximum, may_be_real)
            values = values.astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # judged as not finite, and refused
            if header.dtype.kind == "f":
                whole = whole and bool((chunk == np.floor(chunk)).all())
            values[start : start + len(chunk)] = chunk
        start += len(chunk)
    if header.dtype.kind == "f" and whole and high > 1:
        # Pixel counts written as floats, as scikit-learn's digits are.
        _check_whole(name, low, high, maximum, may_be_real)
        if low >= 0 and high <= maximum:
            values = values.astype(np.uint8)
    inputs: Any = values.reshape(header.shape, order="F" if header.fortran_order else "C")
    return np.ascontiguousarray(inputs)


def _check_whole(name: str, low: float, high: float, maximum: int, may_be_real: bool) -> None:
    if not (low >= 0 and high <= maximum) and not may_be_real:
        raise DataError(
            f"{name}: expected whole numbers in X from 0 to {maximum}, got {low:g} to {high:g}"
        )


def _read_labels(reader: NpzReader, name: str) -> npt.NDArray[Any]:
    header = reader.header("y")
    if len(header.shape) != 1 or header.dtype.kind not in "buiU":
        raise DataError(
            f"{name}: expected y as one column of integers or strings, "
            f"got {header.dtype} of shape {header.shape}"
        )
    labels = reader.array("y", header.nbytes)
    if header.dtype.kind == "U":
        points = labels.astype(labels.dtype.newbyteorder("=")).view(np.uint32)
        first, last = SURROGATES
        if ((points > LAST_CODE_POINT) | ((points >= first) & (points <= last))).any():
            raise DataError(f"{name}: y holds characters that are no text")
    return labels
