"""Reads the corrections that a training takes from the place of the reports."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mlpserve_model.store.evidence.corrections import Correction, row_of
from mlpserve_model.store.evidence.inbox import Inbox, Reviewing, with_instances
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.evidence.reviews import ACCEPTED
from mlpserve_model.store.location import Location
from mlpserve_trainer.errors import DataError

__all__ = ["CorrectionSettings", "collect", "recall"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CorrectionSettings(Reviewing):
    """Which corrections are trained on.

    Attributes:
        place: Where the reports are.
        share: Largest share of the rows, and of those of each class, that a training adds.
        source_share: Largest share of these, in all and of each class, that one source gives.
    """

    place: Location
    share: float = 0.2
    source_share: float = 0.1


def collect(settings: CorrectionSettings, model: str) -> list[Correction]:
    """Return the accepted corrections of a model, oldest first; raises StoreError."""
    place = FeedbackPlace(settings.place)
    found, _ = Inbox(place, model, settings).evaluate()
    return with_instances(place, model, [c for c in found if c.is_accepted])


def recall(place: Location, model: str, tags: Sequence[str]) -> list[Correction]:
    """Return the corrections with these tags, in this order, whatever became of them since.

    Raises:
        DataError: One of them is gone.
        StoreError: The place cannot be read.

    """
    wanted = frozenset(tags)
    reports = FeedbackPlace(place).reports(model, damaged=_log_damage, only=wanted)
    found = {
        r.tag: Correction(r, row_of(r.instance), ACCEPTED)
        for r in reports
        if r.instance is not None and r.truth is not None
    }
    if missing := len(wanted - found.keys()):
        raise DataError(f"{missing} of {len(wanted)} corrections are no longer in {place}")
    return [found[tag] for tag in tags]


def _log_damage(name: str, reason: str) -> None:
    logger.warning("a report is left out", extra={"file": name, "reason": reason})
