"""Data sets that people bring along: a .csv file with the class in the last column."""

import csv
import io
import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.datasets.npz import PIXEL_MAXIMUM, REAL_MAXIMUM, LabelledRows
from mlpserve_trainer.datasets.scaling import column_name
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import open_data

__all__ = ["read_csv"]

# Of the file, in memory while it is parsed: text of four bytes a character, numbers of eight.
BYTES_PER_BYTE = 20
# More classes that are numbers, with fewer rows for each, are rather values to be estimated.
MAX_USUAL_NUMBERS, ROWS_PER_CLASS = 10, 20

# What programs write for a value that is not there.
MISSING = ("", "?", "-", "na", "n/a", "null", "none")

logger = logging.getLogger(__name__)


def read_csv(path: Path) -> LabelledRows:
    """Read numbers in all columns but the last, and classes in the last.

    A first line without numbers is a header. Whole numbers from 0 to 255 are pixels, and become
    uint8; so are numbers from 0 to 1, as float32. All other numbers are real inputs.

    Raises:
        DataError: it cannot be read, its rows differ in length, or a column holds something else.

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
    numbers, classes, widths, header = array("d"), list[str](), set[int](), list[str]()
    for index, line in enumerate(lines):
        if not line:
            continue
        if not (header or classes) and not any(map(_is_number, line[:-1])):
            header = line
            continue
        try:
            numbers.extend(map(float, line[:-1]))
        except ValueError as error:
            raise DataError(f"{name}: {_no_number(header, line, index + 1)}") from error
        classes.append(line[-1].strip())
        widths.add(len(line))
    if len(widths) != 1 or widths == {1}:
        raise DataError(
            f"{name}: expected rows of the same length, numbers and then a class, "
            f"got rows of {', '.join(map(str, sorted(widths)[:5])) or 'no'} columns"
        )
    (width,) = widths
    columns = _columns(header, width)
    _log_classes(columns[-1], classes)
    values = np.frombuffer(numbers, np.float64).reshape(len(classes), -1)
    kind, dtype = _kind(values)
    # As objects: in an array of strings, each takes the memory of the longest.
    labels = np.array(classes, object)
    with np.errstate(over="ignore"):  # infinite then, and refused as such
        inputs: Any = values.astype(dtype)
    maximum = REAL_MAXIMUM if kind == "real" else PIXEL_MAXIMUM
    return LabelledRows(
        inputs, labels, maximum, says_maximum=kind == "real", input_kind=kind, columns=columns[:-1]
    )


def _kind(values: npt.NDArray[np.float64]) -> tuple[str, type[np.uint8 | np.float32]]:
    """Return the kind of inputs that these values are, and the type to keep them in."""
    low, high = values.min(), values.max()  # no comparison with NaN holds
    if low >= 0 and high <= 1:
        return "pixels", np.float32
    if low >= 0 and high <= PIXEL_MAXIMUM and bool((values == np.floor(values)).all()):
        return "pixels", np.uint8
    return "real", np.float32


def _columns(header: Sequence[str], width: int) -> tuple[str, ...]:
    return tuple(header) if len(header) == width else tuple(map(str, range(1, width + 1)))


def _no_number(header: Sequence[str], line: Sequence[str], number: int) -> str:
    """Return which column of a line holds something other than a number, and what to do."""
    index = next(i for i, text in enumerate(line[:-1]) if not _is_number(text))
    column, text = column_name(_columns(header, len(line)), index), line[index].strip()
    if text.lower() in MISSING:
        return f"{column} has no value in line {number}: leave the line out, or fill it in"
    return (
        f"{column} has {plain(text)[:100]!r} in line {number}, expected a number in every column "
        "but the last, which is the class: if this is the class, move it there; otherwise leave "
        "the column out, or write its values as numbers"
    )


def _log_classes(column: str, classes: Sequence[str]) -> None:
    """Say which column is the class, and warn if it looks like a measurement."""
    distinct = set(classes)
    facts = {"column": plain(column)[:200], "classes": len(distinct)}
    logger.info("the last column is the class", extra=facts)
    few_rows = len(classes) < ROWS_PER_CLASS * len(distinct)
    if len(distinct) > MAX_USUAL_NUMBERS and few_rows and all(map(_is_number, distinct)):
        logger.warning(
            "the last column has many numbers for classes; is the class in another column?",
            extra=facts | {"rows": len(classes)},
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
