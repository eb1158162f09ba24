"""Data sets that people bring along: a .csv file with the class in the last column."""

import csv
import io
from pathlib import Path

import numpy as np

from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.files import memory_limit, open_data
from mlpserve_trainer.datasets.npz import PIXEL_MAXIMUM, LabelledRows
from mlpserve_trainer.errors import DataError

__all__ = ["read_csv"]

# Of the file, in memory while it is parsed: each number is a Python object.
BYTES_PER_BYTE = 20


def read_csv(path: Path) -> LabelledRows:
    """Read numbers in all columns but the last, and classes in the last.

    A first line without numbers is a header. Whole numbers up to 255 are pixels, and become uint8;
    all other numbers have to lie between 0 and 1.

    Raises:
        DataError: it cannot be read, or its rows differ in length, or a column holds no number.

    """
    name = plain(str(path))
    with open_data(path) as file:
        limit = memory_limit() // BYTES_PER_BYTE
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{name} has more than {limit} bytes: save it as .npz, which needs less")
    try:
        # utf-8-sig: spreadsheets begin their files with a byte order mark.
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as .csv in UTF-8: {error}") from error
    lines = [line for line in lines if line]
    if lines and not any(map(_is_number, lines[0][:-1])):
        del lines[0]
    widths = {len(line) for line in lines}
    if len(widths) != 1 or widths == {1}:
        raise DataError(
            f"{name}: expected rows of the same length, numbers and then a class, "
            f"got rows of {', '.join(map(str, sorted(widths)[:5])) or 'no'} columns"
        )
    return _rows(name, lines)


def _rows(name: str, lines: list[list[str]]) -> LabelledRows:
    try:
        values = np.array([line[:-1] for line in lines], dtype=np.float64)
    except ValueError as error:
        raise DataError(
            f"{name}: expected a number in every column but the last: {error}"
        ) from error
    labels = np.array([line[-1].strip() for line in lines])
    if values.max() > 1 and (values == np.floor(values)).all():
        if not (values.min() >= 0 and values.max() <= PIXEL_MAXIMUM):
            raise DataError(
                f"{name}: expected whole numbers from 0 to {PIXEL_MAXIMUM}, or numbers from 0 to "
                f"1, got {values.min():g} to {values.max():g}"
            )
        return LabelledRows(values.astype(np.uint8), labels, PIXEL_MAXIMUM)
    with np.errstate(over="ignore", invalid="ignore"):
        return LabelledRows(values.astype(np.float32), labels, PIXEL_MAXIMUM)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
