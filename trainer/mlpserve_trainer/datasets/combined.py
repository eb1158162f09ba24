"""Several sources as one data set: mnist+npz:/data/corrections.

The first source says what is asked and what is judged: its shape, its classes, its test rows. All
rows of the others are for training alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_trainer.datasets.dataset import Dataset, Provenance, known_labels, rows_digest
from mlpserve_trainer.datasets.drop_folder import DroppedFile, read_drop, read_drops
from mlpserve_trainer.datasets.files import is_folder
from mlpserve_trainer.errors import DataError, UsageError

__all__ = ["SourceSpec", "join", "parse_parts", "used_files"]

MAX_LISTED_BYTES = 2**18  # of a manifest, which holds at most 1 MiB


@dataclass(frozen=True)
class SourceSpec:
    """One source as it was asked for: a name, and a place of its own where it has one."""

    name: str
    place: Path | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.place}" if self.place else self.name


def parse_parts(text: str) -> tuple[SourceSpec, ...]:
    """Cut "mnist+npz:/data/corrections" into its parts; raises UsageError for an empty one."""
    parts = []
    for word in text.split("+"):
        name, colon, place = word.partition(":")
        if not name or (colon and not place):
            raise UsageError(
                f"data set {text!r}: expected sources as NAME or NAME:PLACE with + between them; "
                "a place cannot have a + in it"
            )
        parts.append(SourceSpec(name, Path(place).expanduser() if place else None))
    return tuple(parts)


def join(
    first: Dataset,
    parts: Sequence[SourceSpec],
    load_part: Callable[[SourceSpec], Dataset],
    used: Mapping[str, frozenset[str]],
) -> Dataset:
    """Add the rows of all parts but the first, which is loaded, to its training rows.

    * `load_part`: loads a part that is no .npz.
    * `used`: for a part by its name, the sha256 of the files to use; all where it has none.

    Raises DataError when rows do not fit the first source.
    """
    origins = [Provenance(str(parts[0]), first.digest(), len(first.labels))]
    inputs, labels = [first.inputs], [first.labels]
    for part in parts[1:]:
        drops = _drops(part, first, load_part, used.get(str(part)))
        inputs += [drop.inputs for drop in drops]
        labels += [drop.labels for drop in drops]
        origins.append(_origin(part, first, drops))
    added = sum(map(len, labels[1:]))
    joined = replace(first, name="+".join(map(str, parts)), origins=tuple(origins))
    if not added:
        return joined
    rows: Any = np.concatenate(inputs)
    source = f"{first.source}, with {added} rows added"
    return replace(joined, inputs=rows, labels=np.concatenate(labels), added=added, source=source)


def used_files(extra: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Return which files of each source a version was trained on, from its manifest's fields."""
    found = {}
    sources = extra.get("sources")
    for source in sources if isinstance(sources, list) else []:
        files = source.get("files") if isinstance(source, dict) else None
        if isinstance(files, list):
            digests = frozenset(str(f.get("sha256")) for f in files if isinstance(f, dict))
            found[str(source.get("name"))] = digests
    return found


def _drops(
    part: SourceSpec,
    first: Dataset,
    load_part: Callable[[SourceSpec], Dataset],
    only: frozenset[str] | None,
) -> list[DroppedFile]:
    if part.name != "npz":
        return [_whole(part, load_part(part), first)]
    if part.place is None:
        raise UsageError("a second source npz needs its place: npz:FOLDER or npz:FILE")
    if is_folder(part.place):
        return read_drops(part.place, first, only)
    return [read_drop(part.place, first)]


def _whole(part: SourceSpec, data: Dataset, first: Dataset) -> DroppedFile:
    """Take the training rows of another data set; its test rows stay unseen."""
    expected, got = map(_kind, (first, data))
    if got != expected:
        raise DataError(f"{part}: expected rows {expected}, as {first.name} has, got {got}")
    rows = slice(data.training_rows)
    names = np.array(data.class_names)[data.labels[rows]]
    return DroppedFile(
        str(part), "", data.inputs[rows], known_labels(str(part), names, first.class_names)
    )


def _kind(data: Dataset) -> str:
    if data.input_kind == "real":
        return f"{data.input_shape} of real numbers"
    return f"{data.input_shape} of {data.inputs.dtype.name} up to {data.input_maximum}"


def _origin(part: SourceSpec, first: Dataset, drops: Sequence[DroppedFile]) -> Provenance:
    rows = sum(len(drop.labels) for drop in drops)
    files = tuple({"name": _written(d.name), "sha256": d.sha256} for d in drops if d.sha256)
    inputs: Any = np.concatenate([first.inputs[:0], *(drop.inputs for drop in drops)])
    labels = np.concatenate([first.labels[:0], *(drop.labels for drop in drops)])
    digest = rows_digest(inputs, labels, first.class_names)
    return Provenance(str(part), digest, rows, files if _fit(files) else None)


def _written(name: str) -> str:
    """Return a file's name as JSON can hold it: names may be any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _fit(files: Sequence[Mapping[str, str]]) -> bool:
    return len(json.dumps(files)) <= MAX_LISTED_BYTES
