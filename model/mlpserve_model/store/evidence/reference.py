"""reference.json: what a version's inputs and answers looked like on its holdout.

The trainer publishes it with the version, and a server counts the same of the rows that it answers.
The comparison finds drift without any labels (Rabanser et al. 2019, "Failing Loudly").
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import CorruptVersion
from mlpserve_model.format.manifest import Manifest
from mlpserve_model.nn.types import Array
from mlpserve_model.store.evidence.drift_tests import g_test, psi, psi_threshold
from mlpserve_model.store.reader import StoreReader

__all__ = [
    "REFERENCE_FILE",
    "SIGNALS",
    "Counts",
    "Drift",
    "Histogram",
    "Reference",
    "Signals",
    "drift",
    "read_reference",
    "signals",
]

REFERENCE_FILE = "reference.json"
# What is counted: the names of the fields of Signals, Counts and Reference.
SIGNALS = ("predicted", "confidence", "energy", "mean_input")

_KEYS = (*SIGNALS, "confusion")
MAX_BYTES = 2**20
MAX_EDGES = 64
MAX_CONFUSION_CLASSES = 200  # of a matrix that is kept: a larger one fills the file with zeros
_DECILES = 10
# Values this near, as a part of the range, share a bin: sums differ between machines.
_RESOLUTION = 1e-4


class Signals(NamedTuple):
    """What is counted of each row: the predicted class and three numbers, (rows,) each."""

    predicted: NDArray[np.int64]
    confidence: Array
    energy: Array
    mean_input: Array


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows fell into each bin of a reference; of no rows until it is counted.

    Attributes:
        predicted: By predicted class.
        confidence: By bin of the highest probability.
        energy: By bin of -logsumexp of the logits.
        mean_input: By bin of the mean of the row's inputs.

    """

    predicted: Sequence[int] | NDArray[np.int64] = ()
    confidence: Sequence[int] | NDArray[np.int64] = ()
    energy: Sequence[int] | NDArray[np.int64] = ()
    mean_input: Sequence[int] | NDArray[np.int64] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows by value: `counts[i]` lie from `edges[i - 1]` on and below `edges[i]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: ArrayLike) -> "Histogram":
        """Return the histogram of values by their deciles; with fewer bins where many are equal."""
        array = np.asarray(values, dtype=np.float64)
        edges = _decile_edges(array)
        return cls(edges, tuple(map(int, _binned(edges, array))))

    def bins(self, values: ArrayLike) -> NDArray[np.int64]:
        """Count other values in these bins: (edges + 1,)."""
        return _binned(self.edges, np.asarray(values, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Reference:
    """The signals of a version on its holdout.

    Attributes:
        predicted: Rows by predicted class.
        confidence: Rows by the highest probability.
        energy: Rows by -logsumexp of the logits (Liu et al. 2020, "Energy-based Out-of-distribution
            Detection").
        mean_input: Rows by the mean of the row's inputs.
        confusion: Rows by true and predicted class; None beyond 200 classes.

    """

    predicted: tuple[int, ...]
    confidence: Histogram
    energy: Histogram
    mean_input: Histogram
    confusion: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, rows: Signals, labels: NDArray[np.int64], classes: int) -> "Reference":
        """Return the reference of labelled rows; `labels` is (rows,)."""
        predicted = np.bincount(rows.predicted, minlength=classes)
        numbers = {name: Histogram.of(getattr(rows, name)) for name in SIGNALS[1:]}
        confusion = None
        if classes <= MAX_CONFUSION_CLASSES:
            cells = np.bincount(labels * classes + rows.predicted, minlength=classes**2)
            confusion = tuple(map(tuple, cells.reshape(classes, classes).tolist()))
        return cls(tuple(map(int, predicted)), confusion=confusion, **numbers)

    @property
    def rows(self) -> int:
        """The number of rows of the holdout."""
        return sum(self.predicted)

    @property
    def counts(self) -> Counts:
        """The counts of the holdout itself."""
        numbers = (getattr(self, name).counts for name in SIGNALS[1:])
        return Counts(self.predicted, *numbers)

    def count(self, rows: Signals) -> Counts:
        """Count other rows in the bins of this reference."""
        predicted = np.bincount(rows.predicted, minlength=len(self.predicted))
        numbers = (getattr(self, name).bins(getattr(rows, name)) for name in SIGNALS[1:])
        return Counts(predicted, *numbers)

    def encode(self) -> bytes:
        """Return reference.json."""
        return json.dumps(asdict(self), allow_nan=False).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, classes: int) -> "Reference":
        """Return the reference in these bytes, of a version with so many classes.

        Fields that this release does not know are ignored.

        Raises:
            CorruptVersion: It is wrong; the message says what.

        """
        if len(data) > MAX_BYTES:
            raise _wrong("its size", f"{len(data)} bytes", f"at most {MAX_BYTES}")
        try:
            document = strict_json.parse(data)
        except ValueError as error:
            raise CorruptVersion(f"{REFERENCE_FILE} is not JSON: {error}") from error
        if not isinstance(document, dict) or not {*_KEYS} <= document.keys():
            raise _wrong("it", "another document", f"an object with {', '.join(_KEYS)}")
        predicted = _counts(document["predicted"], "predicted", classes)
        rows = sum(predicted)
        numbers = {name: _histogram(document[name], name, rows) for name in SIGNALS[1:]}
        confusion = _confusion(document["confusion"], predicted)
        return cls(predicted, confusion=confusion, **numbers)


@dataclass(frozen=True, slots=True)
class Drift:
    """How the rows of one signal differ from the reference.

    Attributes:
        rows: The rows that were compared with the reference.
        statistic: G of the two samples.
        degrees: Its degrees of freedom.
        p: Probability of such a difference, or a larger one, without drift.
        psi: The population stability index.
        psi_threshold: What the index exceeds with probability `alpha` without drift.

    """

    rows: int
    statistic: float
    degrees: int
    p: float
    psi: float
    psi_threshold: float


def signals(x: Array, logits: Array, probabilities: Array) -> Signals:
    """Return the signals of rows.

    Args:
        x: Scaled instances, (rows, inputs).
        logits: What the output activation was applied to, (rows, classes).
        probabilities: The answers, (rows, classes).

    """
    top = logits.max(axis=1)
    energy = -(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
    predicted = probabilities.argmax(axis=1)
    return Signals(predicted, probabilities.max(axis=1), energy, x.mean(axis=1))


def drift(reference: Reference, counts: Counts, alpha: float = 0.05) -> dict[str, Drift]:
    """Compare rows with a reference, by signal; the signals that were counted."""
    expected = reference.counts
    return {
        name: _drift(getattr(expected, name), found, alpha)
        for name in SIGNALS
        if len(found := getattr(counts, name))
    }


def read_reference(store: StoreReader, manifest: Manifest) -> Reference | None:
    """Return the reference of a version; None if it has none, as those of older releases.

    Raises VersionNotFound, CorruptVersion, or StoreError when the store cannot be read.
    """
    if REFERENCE_FILE not in manifest.files:
        return None
    data = store.document(manifest.version, REFERENCE_FILE, MAX_BYTES)
    return Reference.decode(data, manifest.network.classes)


def _drift(expected: Sequence[int], found: Sequence[int], alpha: float) -> Drift:
    n, m = int(sum(found)), int(sum(expected))
    statistic, degrees, p = g_test(expected, found)
    threshold = psi_threshold(n, m, len(expected), alpha)
    return Drift(n, statistic, degrees, p, psi(expected, found), threshold)


def _decile_edges(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return edges that lie between values, never on one, at most nine."""
    low, high = float(values.min()), float(values.max())
    step = (high - low) * _RESOLUTION
    if not step > 0:
        return ()
    distinct = np.unique(np.round((values - low) / step))
    at = np.searchsorted(distinct, np.round((_quantiles(values) - low) / step), side="right")
    inner = at[at < len(distinct)]
    middles = low + step * (distinct[inner - 1] + distinct[inner]) / 2
    return tuple(map(float, np.unique(middles)))


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return nine of the values, which cut the rest into tenths."""
    return np.quantile(values, np.arange(1, _DECILES) / _DECILES, method="inverted_cdf")


def _binned(edges: tuple[float, ...], values: NDArray[np.float64]) -> NDArray[np.int64]:
    bins = np.searchsorted(np.array(edges), values, side="right")
    return np.bincount(bins, minlength=len(edges) + 1)


def _histogram(document: object, name: str, rows: int) -> Histogram:
    if not isinstance(document, dict) or not {"edges", "counts"} <= document.keys():
        raise _wrong(name, "another value", "an object with edges and counts")
    edges = document["edges"]
    if not isinstance(edges, list) or len(edges) > MAX_EDGES or not all(map(_is_number, edges)):
        raise _wrong(f"{name}.edges", "another value", f"at most {MAX_EDGES} numbers")
    if any(a >= b for a, b in pairwise(edges)):
        raise _wrong(f"{name}.edges", "not in order", "numbers that increase")
    counts = _counts(document["counts"], f"{name}.counts", len(edges) + 1)
    if sum(counts) != rows:
        raise _wrong(f"{name}.counts", f"{sum(counts)} rows", f"{rows} as of the predicted classes")
    return Histogram(tuple(map(float, edges)), counts)


def _confusion(document: object, predicted: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    if document is None:
        return None
    classes = len(predicted)
    if not isinstance(document, list) or len(document) != classes:
        raise _wrong("confusion", "another value", f"null or a list of {classes} rows")
    matrix = tuple(_counts(row, "confusion", classes) for row in document)
    if tuple(map(sum, zip(*matrix, strict=True))) != predicted:
        raise _wrong("confusion", "of other rows", "columns that add up to the predicted classes")
    return matrix


def _counts(document: object, name: str, length: int) -> tuple[int, ...]:
    whole = isinstance(document, list) and len(document) == length
    if not whole or not all(type(n) is int and 0 <= n < 2**53 for n in document):  # type: ignore[attr-defined]
        raise _wrong(name, "another value", f"a list of {length} integers from 0 to 2^53")
    return tuple(document)  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**1023


def _wrong(what: str, found: str, expected: str) -> CorruptVersion:
    return CorruptVersion(f"{REFERENCE_FILE}: {what} is {found}, expected {expected}")
