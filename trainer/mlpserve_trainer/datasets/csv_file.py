"""Data sets that people bring along: a .csv file with the class in the last column."""

import csv
import io
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.datasets.npz import PIXEL_MAXIMUM, LabelledRows
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import open_data

__all__ = ["read_csv"]

# Of the file, in memory while it is parsed: text of four bytes a character, numbers of eight.
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
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        return _rows(name, csv.reader(text, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as .csv in UTF-8: {error}") from error


def _rows(name: str, lines: Iterable[list[str]]) -> LabelledRows:
    """Return the rows, each made numbers as it is read: as lists of text they would take more."""
    numbers, classes, widths = array("d"), list[str](), set[int]()
    for index, line in enumerate(filter(None, lines)):
        if index == 0 and not any(map(_is_number, line[:-1])):
            continue
        try:
            numbers.extend(map(float, line[:-1]))
        except ValueError as error:
            raise DataError(
                f"{name}: expected a number in every column but the last: {str(error)[:200]}"
            ) from error
        classes.append(line[-1].strip())
        widths.add(len(line))
    if len(widths) != 1 or widths == {1}:
        raise DataError(
            f"{name}: expected rows of the same length, numbers and then a class, "
            f"got rows of {', '.join(map(str, sorted(widths)[:5])) or 'no'} columns"
        )
    values = np.frombuffer(numbers, np.float64).reshape(len(classes), -1)
    # As objects: in an array of strings, each takes the memory of the longest.
    labels = np.array(classes, object)
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
