"""What audited answers say about two versions: both answer each reported instance again."""

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlpserve_model import Store, StoredModel, StoreError
from mlpserve_model.store.evidence.receipts import weights_of
from mlpserve_model.store.evidence.records import ReportRecord
from mlpserve_model.store.evidence.statistics import log_e_value
from mlpserve_trainer.judge.pairs import Pair

__all__ = ["Evidence", "Weighing", "digest_of", "weigh"]

ROWS_AT_ONCE = 1024

# The class names of a version with these weights.
ClassNames = Callable[[int, str], tuple[str, ...]]


class Result(Enum):
    """The result of one labelled row, of the rival against the champion."""

    WIN = "the rival alone is right"
    LOSS = "the champion alone is right"
    TIE = "both are right, or both wrong"
    WIN_OR_TIE = "the champion is wrong, the rival perhaps right"
    LOSS_OR_TIE = "the rival is wrong, the champion perhaps right"
    UNKNOWN = "neither is known to be right or wrong"


@dataclass(frozen=True)
class Evidence:
    """The audited answers that were reported since a pair came to be.

    A caller may say that an answer was wrong without the true class. Such a row may be a win or a
    tie; it counts for whichever a decision is less likely with, so that the bound on wrong
    decisions holds whatever the truth was.

    Attributes:
        labels: Rows that both versions answered again.
        wins: Rows that the rival alone has right.
        losses: Rows that the champion alone has right.
        perhaps_wins: Rows that may be wins.
        perhaps_losses: Rows that may be losses.
        left_out: Audited reports that cannot be compared: without an instance, of another shape, or
            of a row that was reported before.
        tags: The receipts' tags of the rows, sorted.
    """

    labels: int
    wins: int
    losses: int
    perhaps_wins: int
    perhaps_losses: int
    left_out: int
    tags: tuple[str, ...]

    @property
    def log_better(self) -> float:
        """The logarithm of the e-value against "the rival is not better"."""
        return log_e_value(self.wins, self.losses + self.perhaps_losses)

    @property
    def log_worse(self) -> float:
        """The logarithm of the e-value against "the rival is not worse"."""
        return log_e_value(self.losses, self.wins + self.perhaps_wins)

    @property
    def digest(self) -> str:
        """The identity of the rows: see `digest_of`."""
        return digest_of(self.tags)


def digest_of(tags: Iterable[str]) -> str:
    """Return "sha256:<hex>" of the sorted tags, one a line."""
    lines = "".join(f"{tag}\n" for tag in sorted(tags))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


class Weighing:
    """The rows that both versions of a pair have answered; more are added as reports come in.

    Attributes:
        known: The tags of the reports that need not be read again.

    Args:
        store: The versions.
        pair: The pair.

    Raises:
        StoreError: A version of the pair cannot be read.
    """

    def __init__(self, store: Store, pair: Pair) -> None:
        self.known: set[str] = set()
        self._pair = pair
        self._models = store.load(pair.champion), store.load(pair.rival)
        self._names = cache(lambda version, weights: _class_names(store, version, weights))
        self._rows: list[_Row] = []
        self._unusable = 0

    def add(self, reports: Iterable[ReportRecord]) -> None:
        """Let both versions answer the audited ones since the pair came to be.

        Reading may fail in the middle: the reports whose rows are here are known, and no others.
        """
        for batch in _batches(reports):
            audited = [r for r in batch if r.audit and r.answered_at >= self._pair.since]
            usable = [r for r in audited if _fits(r, self._models)]
            rows = list(_rows(usable, self._models, self._names))
            self._unusable += len(audited) - len(rows)
            self._rows += rows
            self.known.update(report.tag for report in batch)

    def evidence(self, revoked: Container[str] = ()) -> Evidence:
        """Return what the rows say, without those of revoked sources.

        The first report of a row counts: copies of one row are not independent, and a caller who
        sends the same row often would have a vote for each.
        """
        first: dict[str, _Row] = {}
        rows = sorted(row for row in self._rows if row.source not in revoked)
        for row in rows:
            first.setdefault(row.of, row)
        return _counted(list(first.values()), self._unusable + len(rows) - len(first))


def weigh(store: Store, pair: Pair, reports: Iterable[ReportRecord]) -> Evidence:
    """Return what reports say of a pair; raises StoreError as Weighing."""
    weighing = Weighing(store, pair)
    weighing.add(reports)
    return weighing.evidence()


class _Row(NamedTuple):
    reported_at: float  # rows are sorted by this, and then by the tag
    tag: str
    of: str  # the hash of the row
    source: str
    result: Result


def _counted(rows: Sequence[_Row], left_out: int) -> Evidence:
    results = [row.result for row in rows]
    unknown = results.count(Result.UNKNOWN)
    return Evidence(
        labels=len(rows),
        wins=results.count(Result.WIN),
        losses=results.count(Result.LOSS),
        perhaps_wins=results.count(Result.WIN_OR_TIE) + unknown,
        perhaps_losses=results.count(Result.LOSS_OR_TIE) + unknown,
        left_out=left_out,
        tags=tuple(sorted(row.tag for row in rows)),
    )


def _fits(report: ReportRecord, models: tuple[StoredModel, StoredModel]) -> bool:
    shapes = {model.manifest.signature.input_shape for model in models}
    return report.instance is not None and shapes == {report.instance.shape}


def _rows(
    reports: Sequence[ReportRecord],
    models: tuple[StoredModel, StoredModel],
    names: ClassNames,
) -> Iterator[_Row]:
    if not reports:
        return
    x = np.stack([r.instance.ravel() for r in reports if r.instance is not None])
    answers = [_answers(model, x) for model in models]
    for report, champion, rival in zip(reports, *answers, strict=True):
        result = _result(report, champion, rival, names)
        if result is not None:
            yield _Row(report.reported_at, report.tag, report.row_hash, report.source, result)


def _answers(model: StoredModel, x: npt.NDArray[np.float32]) -> list[str]:
    names = model.manifest.signature.class_names
    return [names[label] for label in model.predict(x).argmax(axis=1)]


def _result(report: ReportRecord, champion: str, rival: str, names: ClassNames) -> Result | None:
    """Return the result of a row; None if it is not known what the caller said of what."""
    if champion == rival:
        return Result.TIE
    truth = report.truth
    if truth is None:
        answers = names(report.version, report.weights)
        if not report.label < len(answers):
            return None
        answered = answers[report.label]
        if not report.right:
            return _unless(answered, champion, rival)
        truth = answered
    if truth == rival:
        return Result.WIN
    return Result.LOSS if truth == champion else Result.TIE


def _unless(wrong: str, champion: str, rival: str) -> Result:
    """Return the result of a row of which one class alone is known, that it is not."""
    if champion == wrong:
        return Result.WIN_OR_TIE
    return Result.LOSS_OR_TIE if rival == wrong else Result.UNKNOWN


def _class_names(store: Store, version: int, weights: str) -> tuple[str, ...]:
    """Return the classes of the version that answered; none if it is gone or was another."""
    try:
        manifest = store.manifest(version)
    except StoreError:
        return ()
    return manifest.signature.class_names if weights_of(manifest.digest).hex() == weights else ()


def _batches(reports: Iterable[ReportRecord]) -> Iterator[list[ReportRecord]]:
    iterator = iter(reports)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch
