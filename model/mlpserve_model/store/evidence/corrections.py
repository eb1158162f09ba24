"""From reports to corrections: what waits for a review, and what was accepted. Pure functions."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from mlpserve_model.store.evidence.records import ReportRecord
from mlpserve_model.store.evidence.reviews import ACCEPTED, AGREED, Review

__all__ = [
    "OVER_QUOTA",
    "PENDING",
    "REVOKED",
    "SUSPECT",
    "Correction",
    "accept_agreed",
    "claim_of",
    "hold_back",
    "reviewed",
    "row_of",
]

# The states of a correction, beside those of a review.
PENDING, OVER_QUOTA, SUSPECT, REVOKED = "pending", "over quota", "suspect", "revoked"


@dataclass(frozen=True, eq=False, slots=True)
class Correction:
    """A report that names the true class of an instance, and what became of it.

    Attributes:
        report: The report. Its instance is left out where it is not needed: it is most of it.
        row: The identity of the instance, see `row_of`.
        state: PENDING, OVER_QUOTA, SUSPECT, REVOKED, or the verdict of its review.
    """

    report: ReportRecord
    row: str
    state: str = PENDING

    @property
    def truth(self) -> str:
        """The name of the true class."""
        return cast(str, self.report.truth)

    @property
    def instance(self) -> npt.NDArray[np.float32]:
        """The instance, scaled, in the shape of the model's inputs, where it was not left out."""
        return cast("npt.NDArray[np.float32]", self.report.instance)

    @property
    def is_accepted(self) -> bool:
        """Whether it may be trained on."""
        return self.state in (ACCEPTED, AGREED)


def claim_of(report: ReportRecord) -> Correction | None:
    """Return the correction in a report, without the instance; None without one or a class."""
    if report.instance is None or report.truth is None:
        return None
    return Correction(replace(report, instance=None), row_of(report.instance))


def row_of(instance: npt.NDArray[np.float32]) -> str:
    """Return the identity of an instance: its SHA-256, in hex.

    The receipt's hash would not do: it changes with the key.
    """
    return hashlib.sha256(instance.astype("<f4").tobytes()).hexdigest()


def reviewed(
    claims: Iterable[Correction],
    reviews: Mapping[str, Review],
    revoked: frozenset[str],
    quota: int,
) -> list[Correction]:
    """Return the corrections among claims, oldest first, each in its state.

    Those on audited answers are left out: they say how accurate a version is, and would no longer
    if it were trained on them.

    Args:
        claims: What `claim_of` gives of a model's reports.
        reviews: The reviews by the reports' tags.
        revoked: The sources that were revoked.
        quota: Reports of one source and day that wait for a review; further ones do not.

    """
    volunteered = (claim for claim in claims if not claim.report.audit)
    waiting: Counter[tuple[str, int]] = Counter()
    found = []
    for claim in sorted(volunteered, key=lambda c: (c.report.reported_at, c.report.tag)):
        report, review = claim.report, reviews.get(claim.report.tag)
        if report.source in revoked:
            state = REVOKED
        elif review is not None:
            # Whether sources still agree is computed again at each evaluation.
            state = PENDING if review.verdict == AGREED else review.verdict
        else:
            day = (report.source, int(report.reported_at // 86400))
            waiting[day] += 1
            state = PENDING if waiting[day] <= quota else OVER_QUOTA
        found.append(replace(claim, state=state))
    return found


def hold_back(found: Iterable[Correction], suspects: Mapping[str, str]) -> list[Correction]:
    """Return the corrections, those of suspect sources as SUSPECT that no person has reviewed."""
    return [
        replace(c, state=SUSPECT) if c.report.source in suspects and c.state == PENDING else c
        for c in found
    ]


def accept_agreed(
    found: Sequence[Correction],
    proven: frozenset[str],
    needed: Callable[[Correction], int | None],
) -> list[Correction]:
    """Return the corrections, the pending ones as AGREED that enough sources agree on.

    Those are of a row about which so many proven sources say the same and none says otherwise. Only
    what a person accepted proves a source, see `sources.proven`: any number of tokens that agree
    may be one caller's.

    Args:
        found: Corrections in their states.
        proven: The proven sources.
        needed: How many have to agree on a correction; None for a review by a person.

    """
    claims: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for c in found:
        if c.state == PENDING or c.is_accepted:
            claims[c.row][c.truth].add(c.report.source)
    voices = {
        row: len(next(iter(by_truth.values())) & proven) if len(by_truth) == 1 else 0
        for row, by_truth in claims.items()
    }

    def is_agreed(c: Correction) -> bool:
        sources = needed(c) if c.state == PENDING else None
        return sources is not None and voices[c.row] >= sources

    return [replace(c, state=AGREED) if is_agreed(c) else c for c in found]
