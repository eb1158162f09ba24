"""Reads the corrections of a model from the place of its reports."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mlpserve_model.store.evidence.genuine import is_genuine
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.location import Location
from mlpserve_trainer.corrections.quarantine import Correction, agreed, corrections
from mlpserve_trainer.corrections.reviews import ACCEPTED, Reviews
from mlpserve_trainer.errors import DataError

__all__ = ["CorrectionSettings", "collect", "recall"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CorrectionSettings:
    """Which corrections are trained on.

    Attributes:
        place: Where the reports are.
        auto_accept: Sources that have to agree on a row for it to be accepted without a review;
            None for none.
        quota: Reports of one source and day that wait for a review.
        share: Largest share of the rows, and of those of each class, that a training adds.
        keys: The keys of receipts; with them every receipt is verified again.
    """

    place: Location
    auto_accept: int | None = None
    quota: int = 100
    share: float = 0.2
    keys: ReceiptKeys | None = None


def collect(settings: CorrectionSettings, model: str) -> list[Correction]:
    """Return the corrections of a model in all their states, oldest first; raises StoreError."""
    place = FeedbackPlace(settings.place)
    reviews = Reviews(place, model)
    reports = _genuine(place.reports(model, damaged=_log_damage), settings.keys)
    found = corrections(reports, reviews.all(), reviews.revoked(), settings.quota)
    return agreed(found, settings.auto_accept) if settings.auto_accept else found


def recall(place: Location, model: str, tags: Sequence[str]) -> list[Correction]:
    """Return the corrections with these tags, in this order, whatever became of them since.

    Raises:
        DataError: One of them is gone.
        StoreError: The place cannot be read.

    """
    wanted = frozenset(tags)
    reports = FeedbackPlace(place).reports(model, damaged=_log_damage)
    found = {r.tag: Correction(r, ACCEPTED) for r in reports if r.tag in wanted}
    if missing := len(wanted) - len(found):
        raise DataError(f"{missing} of {len(wanted)} corrections are no longer in {place}")
    return [found[tag] for tag in tags]


def _genuine(reports: Iterable[ReportRecord], keys: ReceiptKeys | None) -> Iterator[ReportRecord]:
    return (report for report in reports if keys is None or is_genuine(report, keys))


def _log_damage(name: str, reason: str) -> None:
    logger.warning("a report is left out", extra={"file": name, "reason": reason})
