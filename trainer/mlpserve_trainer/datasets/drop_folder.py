"""A drop folder: labelled .npz files that anybody puts there, taken up at the next training.

Each file is checked before any of it is used. A file that is still being written is left for the
next time; one that cannot be used is moved into `.rejected`, with the reason beside it.
"""

import hashlib
import io
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_trainer.datasets.dataset import Dataset, Inputs, Labels, known_labels
from mlpserve_trainer.datasets.npz import NotAnArchive, read_npz
from mlpserve_trainer.errors import DataError

__all__ = ["Drop", "read_drop", "read_drops"]

REJECTED = ".rejected"
# A file that changed in the last seconds may still be written to: it has to stay as it is so long.
SETTLE_SECONDS = 2.0
# Some write more slowly, and only the end of an archive tells that it is whole.
UNFINISHED_SECONDS = 60.0
LARGEST_FILE = 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Drop:
    """The rows of one file: inputs (n, *input_shape), labels (n,), and its sha256 in hex."""

    name: str
    sha256: str
    inputs: Inputs
    labels: Labels


def read_drops(folder: Path, first: Dataset, only: frozenset[str] | None = None) -> list[Drop]:
    """Read every file of a drop folder that fits the first source; move aside what does not.

    In the order of their digests, equal files once: other names do not make other data.

    * `only`: the sha256 of the files to use, the others are left alone; None for all there are.

    Raises DataError when the folder cannot be listed.
    """
    try:
        paths = sorted(p for p in folder.iterdir() if _is_meant(p))
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error
    drops: dict[str, Drop] = {}
    for path, state in _settled(paths):
        drop = _taken(path, state, first, only)
        if drop and drop.sha256 in drops:
            logger.info("%s has the same contents as %s", path.name, drops[drop.sha256].name)
        elif drop:
            drops[drop.sha256] = drop
    return [drops[digest] for digest in sorted(drops)]


def read_drop(path: Path, first: Dataset) -> Drop:
    """Read one file whose rows fit the first source.

    Raises NotAnArchive for no whole .npz, DataError for rows that do not fit, and OSError.
    """
    return _parsed(path, _contents(path), first)


def _contents(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    if path.stat().st_size > LARGEST_FILE:
        raise DataError(f"{path} has more than {LARGEST_FILE} bytes: split it")
    return path.read_bytes()


def _parsed(path: Path, data: bytes, first: Dataset) -> Drop:
    inputs, values, maximum = read_npz(path, io.BytesIO(data), first.input_maximum)
    _check(path, first, inputs, values, maximum)
    labels = known_labels(str(path), values, first.class_names)
    return Drop(path.name, _sha256(data), inputs, labels)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_meant(path: Path) -> bool:
    """Whoever writes under another name, or a hidden one, and renames is never read too early."""
    return path.suffix.lower() == ".npz" and not path.name.startswith(".")


State = tuple[int, int, int]


def _state(path: Path) -> State | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _settled(paths: Sequence[Path]) -> Iterator[tuple[Path, State]]:
    """Give the files that nobody writes to, with their state."""
    before = {path: _state(path) for path in paths}
    changed = [state[1] / 1e9 for state in before.values() if state]
    # By any clock: a volume's may go ahead of ours.
    if any(time.time() - at < SETTLE_SECONDS for at in changed):
        time.sleep(SETTLE_SECONDS)
    for path, state in before.items():
        if state and _state(path) == state:
            yield path, state
        else:
            logger.warning("%s is being written: left for the next time", path)


def _taken(path: Path, state: State, first: Dataset, only: frozenset[str] | None) -> Drop | None:
    """Read a file, or say why not; None where it is not used."""
    try:
        data = _contents(path)
        if only is not None and _sha256(data) not in only:
            return None
        drop = _parsed(path, data, first)
    except NotAnArchive as error:
        if time.time() - state[1] / 1e9 < UNFINISHED_SECONDS:
            logger.warning("%s is not whole yet: left for the next time", path)
        else:
            _reject(path, str(error))
        return None
    except DataError as error:
        _reject(path, str(error))
        return None
    except OSError as error:  # of the volume, not of the file
        logger.warning("%s cannot be read, left for the next time: %s", path, error.strerror)
        return None
    if _state(path) != state:
        logger.warning("%s is being written: left for the next time", path)
        return None
    return drop


def _check(path: Path, first: Dataset, inputs: Inputs, values: Any, maximum: int) -> None:
    if inputs.ndim == 0 or inputs.shape[1:] != first.input_shape:
        raise DataError(
            f"{path}: expected rows of shape {first.input_shape}, as {first.name} has, "
            f"got X of shape {inputs.shape}"
        )
    if len(inputs) == 0 or len(inputs) != len(values):
        raise DataError(
            f"{path}: expected a label for each row, got {len(inputs)} rows and "
            f"{len(values)} labels"
        )
    if maximum != first.input_maximum:
        raise DataError(
            f"{path}: expected maximum {first.input_maximum}, as {first.name} has, got {maximum}"
        )
    if inputs.dtype != first.inputs.dtype:
        kinds = {"uint8": f"whole numbers from 0 to {maximum}", "float32": "fractions from 0 to 1"}
        wanted, got = kinds[str(first.inputs.dtype)], kinds[str(inputs.dtype)]
        raise DataError(f"{path}: expected {wanted} in X, as {first.name} has, got {got}")
    if inputs.dtype == np.float32 and not (inputs.min() >= 0 and inputs.max() <= 1):
        raise DataError(f"{path}: expected X from 0 to 1 and no NaN; scale or clean it")


def _reject(path: Path, reason: str) -> None:
    """Move a file aside with the reason; where that cannot be, say so and go on without it."""
    logger.error("%s is left out: %s", path.name, reason)
    note = None
    try:
        place = path.parent / REJECTED
        place.mkdir(exist_ok=True)
        target = _free(place, path)
        # The reason first: no file lies there without one.
        note = target.with_name(f"{target.name}.reason.txt")
        note.write_text(reason + "\n", "utf-8")
        path.rename(target)
    except OSError as error:
        if note:
            with suppress(OSError):
                note.unlink()
        logger.warning("%s cannot be moved aside: %s", path, error.strerror)


def _free(place: Path, path: Path) -> Path:
    """Return a name that nothing has there yet."""
    if not (place / path.name).exists():
        return place / path.name
    names = (f"{path.stem}-{number}{path.suffix}" for number in itertools.count(2))
    return next(place / name for name in names if not (place / name).exists())
