"""Data sets that people bring along: a .csv file with the class in the last column."""

import csv
import io
import logging
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.dataset import Inputs
from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.datasets.npz import PIXEL_MAXIMUM, LabelledRows
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import open_data

__all__ = ["read_csv"]

# Of the file, in memory while it is parsed: text of four bytes a character, numbers of eight.
BYTES_PER_BYTE = 20
# More classes that are numbers, with fewer rows for each, are rather values to be estimated.
MAX_USUAL_NUMBERS, ROWS_PER_CLASS = 10, 20

logger = logging.getLogger(__name__)


def read_csv(path: Path) -> LabelledRows:
    """Read numbers in all columns but the last, and classes in the last.

    A first line without numbers is a header. Whole numbers up to 255 are pixels, and become uint8;
    all other numbers have to lie between 0 and 1.

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
    for index, line in enumerate(filter(None, lines)):
        if index == 0 and not any(map(_is_number, line[:-1])):
            header = line
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
    (width,) = widths
    columns = header if len(header) == width else list(map(str, range(1, width + 1)))
    _log_classes(columns[-1], classes)
    values = np.frombuffer(numbers, np.float64).reshape(len(classes), -1)
    whole = values.max() > 1 and bool((values == np.floor(values)).all())
    _check_range(name, columns, values, PIXEL_MAXIMUM if whole else 1)
    # As objects: in an array of strings, each takes the memory of the longest.
    labels = np.array(classes, object)
    inputs: Inputs = values.astype(np.uint8) if whole else values.astype(np.float32)
    return LabelledRows(inputs, labels, PIXEL_MAXIMUM)


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


def _check_range(
    name: str, columns: Sequence[str], values: npt.NDArray[np.float64], limit: int
) -> None:
    """Raise DataError naming the first column with a value beyond 0 to `limit`, or a NaN."""
    lows, highs = values.min(axis=0), values.max(axis=0)
    beyond = np.flatnonzero(~((lows >= 0) & (highs <= limit)))  # no comparison with NaN holds
    if len(beyond):
        first = int(beyond[0])
        raise DataError(
            f"{name}: expected numbers from 0 to 1, or whole numbers from 0 to {PIXEL_MAXIMUM} in "
            f"all columns, got {lows[first]:g} to {highs[first]:g} in column "
            f"{plain(columns[first])[:200]!r}: scale each column to 0..1"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
