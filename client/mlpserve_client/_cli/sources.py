"""The instances that `predict` and `explain` are given: files, a pipe, or a demonstration."""

import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_client import _images
from mlpserve_client._cli import demo as _demo
from mlpserve_client._cli import files as _files
from mlpserve_client._cli.text import printable
from mlpserve_client._errors import InvalidInputError, SettingsError
from mlpserve_client._results import ModelVersion

Array: TypeAlias = npt.NDArray[Any]

MAX_PICTURES = 12  # more instances than this are listed, a line each


class Source(NamedTuple):
    """Instances of one input, `[n, ...]`."""

    name: str
    rows: Array
    numbers: range  # the rows' numbers in the input
    is_single: bool = False  # whether the input has this row alone

    def called(self, number: int) -> str:
        """Return what a person calls a row: "seven.png", or "digits.npy[3]"."""
        return self.name if self.is_single else f"{self.name}[{number}]"


def read_sources(arguments: Namespace, model: ModelVersion) -> tuple[list[Source], bool]:
    """Read every input that can be read; report the others, and whether there were any.

    Raises:
        SettingsError: neither files nor --demo were given, or both.

    """
    if bool(arguments.files) == arguments.demo:
        raise SettingsError("expected files (- for stdin), or --demo")
    if arguments.demo:
        return [_rows_of(*_demo_rows(model, arguments.store), arguments.index)], False
    sources: list[Source] = []
    for name in arguments.files:
        try:
            sources.append(read_rows(name, model, arguments.index))
        except InvalidInputError as error:
            text = str(error) if name in str(error) else f"{name}: {error}"
            print(f"mlpserve-client: {printable(text)}", file=sys.stderr)
    return sources, len(sources) < len(arguments.files)


def read_rows(name: str, model: ModelVersion, index: str | None) -> Source:
    """Read the instances of one file, or those of its rows that `index` chooses."""
    return _rows_of(name, _read(name, model), index)


def _demo_rows(model: ModelVersion, store: str) -> tuple[str, Array]:
    """Return drawn digits for a model of digits, golden inputs of the version for another."""
    drawn = _demo.digits(model)
    if drawn is not None:
        return "drawn", drawn
    golden = _demo.golden_inputs(model, Path(store))
    if golden is not None:
        return "golden", golden
    ref = model.ref
    print(
        f"mlpserve-client: {printable(f'{ref.name} version {ref.version} is not in {store}')}: "
        "these are random numbers, not the version's golden inputs; --store says where it is",
        file=sys.stderr,
    )
    return "random", np.random.default_rng(0).random((3, *model.input_shape), dtype=np.float32)


def _read(name: str, model: ModelVersion) -> Array:
    content = _files.read(name)
    if not isinstance(content, np.ndarray):
        return _images.fit(content, model.input_shape)[np.newaxis]
    if content.size == math.prod(model.input_shape) and content.shape[0] != 1:
        return content[np.newaxis]  # one instance, not as many as its first dimension
    if content.ndim < 2:
        raise InvalidInputError(
            f"{name} holds {content.size} numbers, the model takes {math.prod(model.input_shape)}"
        )
    return content


def _rows_of(name: str, rows: Array, index: str | None) -> Source:
    numbers = range(len(rows))
    if index is not None:
        numbers = _chosen(index, numbers, name)
    return Source(name, rows[numbers.start : numbers.stop], numbers, len(rows) == 1)


def _chosen(index: str, numbers: range, name: str) -> range:
    first, colon, last = index.partition(":")
    try:
        start = int(first or 0)
        stop = int(last or len(numbers)) if colon else start + 1
    except ValueError as error:
        raise SettingsError(
            f"invalid --index {index!r}: expected a row, 7, or rows, 0:10"
        ) from error
    if not 0 <= start < stop <= len(numbers):
        raise SettingsError(f"{name} has rows 0 to {len(numbers) - 1}; --index {index} is outside")
    return range(start, stop)
