"""From reports to corrections: what waits for a review, and what was accepted. Pure functions."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from mlpserve_model.store.evidence.records import ReportRecord
from mlpserve_trainer.corrections.reviews import ACCEPTED, Review

__all__ = [
    "AGREED",
    "OVER_QUOTA",
    "PENDING",
    "REVOKED",
    "Correction",
    "agreed",
    "corrections",
    "row_of",
]

# The states of a correction, beside those of a review.
PENDING, OVER_QUOTA, REVOKED, AGREED = "pending", "over quota", "revoked", "agreed"


@dataclass(frozen=True, eq=False)
class Correction:
    """A report that names the true class of an instance, and what became of it.

    Attributes:
        report: The report; it has an instance and a class.
        state: PENDING, OVER_QUOTA, REVOKED, AGREED, or the verdict of its review.
    """

    report: ReportRecord
    state: str

    @property
    def truth(self) -> str:
        """The name of the true class."""
        return cast(str, self.report.truth)

    @property
    def instance(self) -> npt.NDArray[np.float32]:
        """The instance, scaled, in the shape of the model's inputs."""
        return cast("npt.NDArray[np.float32]", self.report.instance)

    @property
    def is_accepted(self) -> bool:
        """Whether it may be trained on."""
        return self.state in (ACCEPTED, AGREED)


def corrections(
    reports: Iterable[ReportRecord],
    reviews: Mapping[str, Review],
    revoked: frozenset[str],
    quota: int,
) -> list[Correction]:
    """Return the corrections among reports, oldest first.

    Reports on audited answers are left out: they say how accurate a version is, and would no longer
    if it were trained on them.

    Args:
        reports: All reports of a model.
        reviews: The reviews by the reports' tags.
        revoked: The sources that were revoked.
        quota: Reports of one source and day that wait for a review; further ones do not.

    """
    usable = (r for r in reports if r.instance is not None and r.truth is not None and not r.audit)
    ordered = sorted(usable, key=lambda report: (report.reported_at, report.tag))
    waiting: Counter[tuple[str, int]] = Counter()
    found = []
    for report in ordered:
        review = reviews.get(report.tag)
        if report.source in revoked:
            state = REVOKED
        elif review is not None:
            state = review.verdict
        else:
            day = (report.source, int(report.reported_at // 86400))
            waiting[day] += 1
            state = PENDING if waiting[day] <= quota else OVER_QUOTA
        found.append(Correction(report, state))
    return found


def agreed(found: Sequence[Correction], sources: int) -> list[Correction]:
    """Return the corrections, the pending ones as AGREED that enough sources agree on.

    Those are of a row about which `sources` tokens or more say the same and none says otherwise.
    Callers without a token are nobody's, and count for nothing.
    """
    claims: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for correction in _in_force(found):
        if correction.report.source:
            claims[row_of(correction)][correction.truth].add(correction.report.source)
    undisputed = {
        row
        for row, by_truth in claims.items()
        if len(by_truth) == 1 and len(next(iter(by_truth.values()))) >= sources
    }
    return [
        replace(c, state=AGREED) if c.state == PENDING and row_of(c) in undisputed else c
        for c in found
    ]


def row_of(correction: Correction) -> str:
    """Return the identity of a correction's row: the SHA-256 of its instance, in hex.

    The receipt's hash would not do: it changes with the key.
    """
    return hashlib.sha256(correction.instance.astype("<f4").tobytes()).hexdigest()


def _in_force(found: Iterable[Correction]) -> Iterator[Correction]:
    return (c for c in found if c.state == PENDING or c.is_accepted)
