"""The command `mlpserve-client predict`: reads the inputs, writes the answers."""

import csv
import json
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_client import _images
from mlpserve_client._cli import demo as _demo
from mlpserve_client._cli import files as _files
from mlpserve_client._cli.terminal import Progress, bars, beside, picture
from mlpserve_client._cli.text import printable
from mlpserve_client._errors import InvalidInputError, SettingsError
from mlpserve_client._results import ModelVersion, Prediction
from mlpserve_client._sync import Client

Array: TypeAlias = npt.NDArray[Any]

_SLAB = 32768  # rows classified at once: the part of a larger file that is in memory
_MAX_PICTURES = 12  # more instances than this are listed, a line each


class _Source(NamedTuple):
    """Instances of one input, `[n, ...]`."""

    name: str
    rows: Array
    numbers: range  # the rows' numbers in the input


class _Answer(NamedTuple):
    source: str
    number: int
    values: Array
    prediction: Prediction


def predict(client: Client, arguments: Namespace) -> int:
    """Classify the given files, or a few drawn digits."""
    if bool(arguments.files) == arguments.demo:
        raise SettingsError("expected files to classify (- for stdin), or --demo")
    model = client.model(version=arguments.version, alias=arguments.alias)
    sources, failed = _sources(arguments, model)
    total = sum(len(source.rows) for source in sources)
    write = _writer(arguments, total, model)
    progress = Progress(total)
    for done, answer in enumerate(_answers(client, sources, arguments), start=1):
        write(answer)
        if arguments.csv and (done % _SLAB == 0 or done == total):
            progress.show(done)
    return 1 if failed else 0


def _sources(arguments: Namespace, model: ModelVersion) -> tuple[list[_Source], bool]:
    """Read every input that can be read; report the others, and whether there were any."""
    if arguments.demo:
        return [_rows_of(*_drawn(model), arguments.index)], False
    sources: list[_Source] = []
    for name in arguments.files:
        try:
            sources.append(_rows_of(name, _read(name, model), arguments.index))
        except InvalidInputError as error:
            text = str(error) if name in str(error) else f"{name}: {error}"
            print(f"mlpserve-client: {printable(text)}", file=sys.stderr)
    return sources, len(sources) < len(arguments.files)


def _drawn(model: ModelVersion) -> tuple[str, Array]:
    try:
        height, width = _images.plane(model.input_shape)
    except InvalidInputError:
        # The model takes no images: any numbers show that the server answers.
        rows = np.random.default_rng(0).random((3, *model.input_shape), dtype=np.float32)
        return "random", rows
    drawn = [_demo.digit(label, height, width) for label in _demo.DIGITS]
    return "drawn", np.stack(drawn).reshape(-1, *model.input_shape)


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


def _rows_of(name: str, rows: Array, index: str | None) -> _Source:
    numbers = range(len(rows))
    if index is not None:
        numbers = _chosen(index, numbers, name)
    return _Source(name, rows[numbers.start : numbers.stop], numbers)


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


def _answers(client: Client, sources: list[_Source], arguments: Namespace) -> Iterator[_Answer]:
    version, alias = arguments.version, arguments.alias
    for source in sources:
        for start in range(0, len(source.rows), _SLAB):
            slab = source.rows[start : start + _SLAB]
            batch = client.predict_batch(slab, version=version, alias=alias)
            # Every answer by the version of the first, whatever is published meanwhile.
            version, alias = batch.model.version, None
            numbers = source.numbers[start : start + _SLAB]
            for number, values, prediction in zip(numbers, slab, batch, strict=True):
                yield _Answer(source.name, number, values, prediction)


def _writer(arguments: Namespace, total: int, model: ModelVersion) -> Callable[[_Answer], None]:
    if arguments.json:
        return _write_json
    if arguments.csv:
        return _csv_writer(model)
    return _write_picture if total <= _MAX_PICTURES else _write_line


def _write_json(answer: _Answer) -> None:
    prediction = answer.prediction
    row = {
        "input": answer.source,
        "row": answer.number,
        "label": prediction.label,
        "name": prediction.name,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities.tolist(),
        "model": prediction.model.name,
        "version": prediction.model.version,
    }
    print(json.dumps(row))


def _csv_writer(model: ModelVersion) -> Callable[[_Answer], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    classes = [f"p_{name}" for name in model.class_names]
    writer.writerow(["input", "row", "label", "name", "probability", "version", *classes])

    def write(answer: _Answer) -> None:
        prediction = answer.prediction
        numbers = [f"{p:.6g}" for p in (prediction.probability, *prediction.probabilities)]
        start = (answer.source, answer.number, prediction.label, prediction.name)
        writer.writerow([*start, numbers[0], prediction.model.version, *numbers[1:]])

    return write


def _write_line(answer: _Answer) -> None:
    prediction = answer.prediction
    named = printable(f"{answer.source}[{answer.number}]  {prediction.name}")
    print(f"{named}  {prediction.probability:.2%}")


def _write_picture(answer: _Answer) -> None:
    prediction = answer.prediction
    ref = prediction.model
    named = printable(f"{answer.source}[{answer.number}]: {prediction.name}")
    print(f"{named} with {prediction.probability:.2%} ({ref.name} version {ref.version})")
    try:
        left = picture(answer.values.reshape(_images.plane(answer.values.shape)))
    except InvalidInputError:
        left = []
    print(beside(left, bars(prediction)), end="\n\n")
