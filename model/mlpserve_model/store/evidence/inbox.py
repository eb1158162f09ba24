"""The corrections of a model as its reports come in: each is read once."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from mlpserve_model.store.evidence.corrections import (
    Correction,
    accept_agreed,
    claim_of,
    hold_back,
    reviewed,
    row_of,
)
from mlpserve_model.store.evidence.genuine import is_genuine
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.evidence.reviews import AGREED, Review, Reviews
from mlpserve_model.store.evidence.sources import proven, suspects

__all__ = ["Inbox", "Reviewing", "with_instances"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reviewing:
    """Which reports wait for a review, and which need none.

    Attributes:
        auto_accept: Proven sources that have to agree on a row for it to be accepted without a
            review; None for none.
        quota: Reports of one source and day that wait for a review.
        keys: Returns the keys of receipts, which may be replaced meanwhile; with them every receipt
            is verified again.
    """

    auto_accept: int | None = None
    quota: int = 100
    keys: Callable[[], ReceiptKeys] | None = None


class Inbox:
    """What callers said of a model's answers; what was read before is not read again.

    Instances are not kept: see `with_instances`.

    Args:
        place: The reports and the reviews.
        model: Name of the model.
        reviewing: Which reports wait for a review.
    """

    def __init__(self, place: FeedbackPlace, model: str, reviewing: Reviewing) -> None:
        self._place, self._model, self._reviewing = place, model, reviewing
        self._claims: list[Correction] = []
        self._known: set[str] = set()

    def evaluate(self) -> tuple[list[Correction], dict[str, str]]:
        """Return the corrections in their states, oldest first, and why sources are suspects.

        Raises StoreError when the place cannot be read.
        """
        self._read_new()
        kept = Reviews(self._place, self._model)
        reviews, revoked = kept.all(), kept.revoked()
        found = reviewed(self._claims, reviews, revoked, self._reviewing.quota)
        audited = (c for c in self._claims if c.report.audit and c.report.source not in revoked)
        held_back = suspects(found, audited)
        found = hold_back(found, held_back)
        return accept_agreed(found, proven(found), self._needed(reviews)), held_back

    def _needed(self, reviews: Mapping[str, Review]) -> Callable[[Correction], int | None]:
        """Return how many sources have to agree: as the settings say, or an earlier `auto` did."""

        def needed(correction: Correction) -> int | None:
            review = reviews.get(correction.report.tag)
            earlier = review.sources if review and review.verdict == AGREED else None
            asked = [n for n in (self._reviewing.auto_accept, earlier) if n]
            return min(asked, default=None)

        return needed

    def _read_new(self) -> None:
        keys = self._reviewing.keys() if self._reviewing.keys else None
        for report in self._place.reports(self._model, damaged=self._damaged, known=self._known):
            self._known.add(report.tag)
            claim = claim_of(report)
            if claim and (keys is None or is_genuine(report, keys)):
                self._claims.append(claim)

    def _damaged(self, name: str, reason: str) -> None:
        self._known.add(PurePosixPath(name).stem)
        logger.warning("a report is left out", extra={"file": name, "reason": reason})


def with_instances(
    place: FeedbackPlace, model: str, found: Sequence[Correction]
) -> list[Correction]:
    """Return corrections with their instances, in this order, without those that are gone."""
    reports = place.reports(model, only={c.report.tag for c in found})
    instances = {report.tag: report.instance for report in reports}
    return [
        replace(c, report=replace(c.report, instance=instance))
        for c in found
        if (instance := instances.get(c.report.tag)) is not None and row_of(instance) == c.row
    ]
