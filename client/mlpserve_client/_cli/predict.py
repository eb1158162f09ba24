"""The command `mlpserve-client predict`: reads the inputs, writes the answers."""

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mlpserve_client import _images
from mlpserve_client._cli.sources import MAX_PICTURES, Array, Source, read_sources
from mlpserve_client._cli.terminal import Progress, as_text, bars, beside, picture
from mlpserve_client._cli.text import printable
from mlpserve_client._errors import InvalidInputError
from mlpserve_client._results import ModelVersion, Prediction
from mlpserve_client._sync import Client

_SLAB = 32768  # rows classified at once: the part of a larger file that is in memory


class _Answer(NamedTuple):
    source: Source
    number: int
    values: Array
    prediction: Prediction


def predict(client: Client, arguments: Namespace) -> int:
    """Classify the given files, or a few drawn digits."""
    model = client.model(version=arguments.version, alias=arguments.alias)
    sources, failed = read_sources(arguments, model)
    total = sum(len(source.rows) for source in sources)
    write = _writer(arguments, total, model)
    progress = Progress(total)
    for done, answer in enumerate(_answers(client, sources, arguments), start=1):
        write(answer)
        if arguments.csv and (done % _SLAB == 0 or done == total):
            progress.show(done)
    return 1 if failed else 0


def _answers(client: Client, sources: list[Source], arguments: Namespace) -> Iterator[_Answer]:
    version, alias = arguments.version, arguments.alias
    for source in sources:
        for start in range(0, len(source.rows), _SLAB):
            slab = source.rows[start : start + _SLAB]
            batch = client.predict_batch(
                slab, version=version, alias=alias, receipts=arguments.receipt
            )
            # Every answer by the version of the first, whatever is published meanwhile.
            version, alias = batch.model.version, None
            numbers = source.numbers[start : start + _SLAB]
            for number, values, prediction in zip(numbers, slab, batch, strict=True):
                yield _Answer(source, number, values, prediction)


def _writer(arguments: Namespace, total: int, model: ModelVersion) -> Callable[[_Answer], None]:
    if arguments.json:
        return _write_json
    if arguments.csv:
        return _csv_writer(model, arguments.receipt)
    return _write_picture if total <= MAX_PICTURES else _write_line


def _write_json(answer: _Answer) -> None:
    prediction = answer.prediction
    row = {
        "input": answer.source.name,
        "row": answer.number,
        "label": prediction.label,
        "name": prediction.name,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities.tolist(),
        "output_kind": prediction.output_kind,
        "model": prediction.model.name,
        "version": prediction.model.version,
    }
    if prediction.receipt:
        row |= {"receipt": prediction.receipt.hex(), "audit": prediction.audit}
    print(json.dumps(row))


def _csv_writer(model: ModelVersion, receipts: bool) -> Callable[[_Answer], None]:
    classes = [f"p_{name}" for name in model.class_names]
    last = ["receipt"] if receipts else []
    _write_row(["input", "row", "label", "name", "probability", "version", *classes, *last])

    def write(answer: _Answer) -> None:
        prediction = answer.prediction
        numbers = [f"{p:.6g}" for p in (prediction.probability, *prediction.probabilities)]
        start = (answer.source.name, answer.number, prediction.label, prediction.name)
        end = [prediction.receipt.hex()] if receipts else []
        _write_row([*start, numbers[0], prediction.model.version, *numbers[1:], *end])

    return write


def _write_row(values: Sequence[object]) -> None:
    """Write a row of CSV, its texts as they are, but to a terminal without control characters."""
    texts = [str(value) for value in values]
    if sys.stdout.isatty():
        texts = [printable(text) for text in texts]
    # A carriage return ends a line for those who read it; csv quotes only what it ends lines with.
    dialect = "unix" if any("\r" in text for text in texts) else "excel"  # "unix" quotes all
    csv.writer(sys.stdout, dialect, lineterminator="\n").writerow(texts)


def _write_line(answer: _Answer) -> None:
    prediction = answer.prediction
    named = printable(f"{answer.source.called(answer.number)}  {prediction.name}")
    text = as_text(prediction, prediction.probability)
    print(f"{named}  {text}  {prediction.receipt.hex()}".rstrip())


def _write_picture(answer: _Answer) -> None:
    prediction = answer.prediction
    ref = prediction.model
    named = printable(f"{answer.source.called(answer.number)}: {prediction.name}")
    by = printable(f"({ref.name} version {ref.version})")
    print(f"{named} with {as_text(prediction, prediction.probability)} {by}")
    if prediction.receipt:
        drawn = ", drawn for the audit: its truth is asked for" if prediction.audit else ""
        print(f"receipt {prediction.receipt.hex()}{drawn}")
    try:
        left = picture(answer.values.reshape(_images.plane(answer.values.shape)))
    except InvalidInputError:
        left = []
    print(beside(left, bars(prediction, left)), end="\n\n")
