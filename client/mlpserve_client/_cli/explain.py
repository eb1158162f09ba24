"""The command `mlpserve-client explain`: which values of an input its answer came from."""

import difflib
import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mlpserve_client import _images
from mlpserve_client._cli.heat_map import heat_map, legend
from mlpserve_client._cli.sources import MAX_PICTURES, Source, read_sources
from mlpserve_client._cli.terminal import beside
from mlpserve_client._cli.text import printable
from mlpserve_client._errors import InvalidInputError, SettingsError
from mlpserve_client._explanation import Explanation
from mlpserve_client._sync import Client

_MAX_DIGITS = 9  # of a class's number
_TOP = 6  # values listed beside a picture


class _Answer(NamedTuple):
    source: Source
    number: int
    explanation: Explanation


def explain(client: Client, arguments: Namespace) -> int:
    """Explain the answers for the given files, or for a few drawn digits."""
    model = client.model(version=arguments.version, alias=arguments.alias)
    label = None if arguments.label is None else _label(arguments.label, model.class_names)
    sources, failed = read_sources(arguments, model)
    write = _writer(arguments, sum(len(source.rows) for source in sources))
    for answer in _answers(client, sources, arguments, label):
        write(answer)
    return 1 if failed else 0


def _label(text: str, class_names: Sequence[str]) -> int:
    """Return the number of the class with this number or else this name."""
    if text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) < len(class_names):
        return int(text)
    if text in class_names:
        return class_names.index(text)
    near = difflib.get_close_matches(text, class_names, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"invalid --label {text!r}: expected a number from 0 to {len(class_names) - 1} "
        f"or the name of a class{hint}"
    )


def _answers(
    client: Client, sources: list[Source], arguments: Namespace, label: int | None
) -> Iterator[_Answer]:
    version, alias = arguments.version, arguments.alias
    for source in sources:
        for number, values in zip(source.numbers, source.rows, strict=True):
            found = client.explain(values, label=label, version=version, alias=alias)
            # Every answer by the version of the first, whatever is published meanwhile.
            version, alias = found.model.version, None
            yield _Answer(source, number, found)


def _writer(arguments: Namespace, total: int) -> Callable[[_Answer], None]:
    if arguments.json:
        return _write_json
    return _write_picture if total <= MAX_PICTURES else _write_line


def _write_json(answer: _Answer) -> None:
    found = answer.explanation
    row = {
        "input": answer.source.name,
        "row": answer.number,
        "label": found.label,
        "name": found.name,
        "score": found.score,
        "baseline_score": found.baseline_score,
        "attributions": found.attributions.tolist(),
        "model": found.model.name,
        "version": found.model.version,
    }
    print(json.dumps(row))


def _write_line(answer: _Answer) -> None:
    found = answer.explanation
    named = printable(f"{answer.source.called(answer.number)}  {found.name}")
    print(f"{named}  score {found.score:.2f}, baseline {found.baseline_score:.2f}")


def _write_picture(answer: _Answer) -> None:
    found = answer.explanation
    named = printable(f"{answer.source.called(answer.number)}: why {found.name}")
    by = printable(f"({found.model.name} version {found.model.version})")
    print(f"{named} {by}")
    print(beside(*_blocks(found)), end="\n\n")


def _blocks(found: Explanation) -> tuple[list[str], list[str]]:
    """Return the picture, if the input is one, and the figures beside it."""
    figures = [
        f"score for {printable(found.name)} {found.score:.2f}, baseline {found.baseline_score:.2f}",
        "",
        "values that account for most of the difference:",
        *(f"  {value.attribution:+8.3f}  at {list(value.position)}" for value in found.top(_TOP)),
    ]
    try:
        shape = _images.plane(found.attributions.shape)
    except InvalidInputError:
        return [], figures
    return heat_map(found.attributions.reshape(shape)), [*figures, "", legend()]
