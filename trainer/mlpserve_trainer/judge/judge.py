"""The judge: promotes, retires and rolls back on evidence, and records why."""

import json
import logging
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from mlpserve_model import CHALLENGER, CHAMPION, CorruptVersion, Store, VersionNotFound
from mlpserve_model.store.evidence.genuine import why_not_genuine
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.evidence.reviews import Reviews
from mlpserve_model.store.reader import translated
from mlpserve_trainer.judge.decision import Decision, decide
from mlpserve_trainer.judge.evidence import Weighing
from mlpserve_trainer.judge.pairs import Pair, pairs

__all__ = ["Judge", "JudgeSettings", "audited", "decision_file"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How the judge decides.

    Attributes:
        alpha: The probability of acting on a pair although nothing is to be gained by it.
        probation: Seconds that a new champion is compared with the one before it; 0 for none.
        keys: Returns the keys of receipts, which may be replaced meanwhile; with them every receipt
            is verified again.
    """

    alpha: float = 0.05
    probation: float = 7 * 86400.0
    keys: Callable[[], ReceiptKeys] | None = None


class Judge:
    """Weighs the audited reports of a model, and acts on what they prove.

    Args:
        store: The versions.
        place: The reports.
        settings: How to decide.
    """

    def __init__(self, store: Store, place: FeedbackPlace, settings: JudgeSettings) -> None:
        self._store, self._place, self._settings = store, place, settings
        self._seen: dict[Pair, Weighing] = {}
        self._faults: dict[Pair, str] = {}  # of pairs that cannot be weighed

    def evaluate(self, now: Callable[[], float] = time.time) -> list[Decision]:
        """Return what the evidence allows of each pair that waits for a decision; change nothing.

        A pair with a damaged version is left out, with a warning. Raises StoreError when the store
        or the reports cannot be read, or if a version of every pair is damaged.
        """
        waiting = pairs(self._store, now(), self._settings.probation)
        revoked = Reviews(self._place, self._store.model).revoked()
        self._seen = self._weighings(waiting)
        for pair, weighing in self._seen.items():
            weighing.add(self._new_reports(pair, weighing.known))
        return [
            decide(pair, weighing.evidence(revoked), self._settings.alpha)
            for pair, weighing in self._seen.items()
        ]

    def _weighings(self, waiting: Sequence[Pair]) -> dict[Pair, Weighing]:
        """Return what is known of each pair, from before while it is the same."""
        found, faults = {}, {}
        for pair in waiting:
            try:
                found[pair] = self._seen.get(pair) or Weighing(self._store, pair)
            except (CorruptVersion, VersionNotFound) as error:
                faults[pair] = str(error)
                if len(faults) == len(waiting):
                    raise
        for pair, reason in faults.items():
            if self._faults.get(pair) != reason:
                facts = {"champion": pair.champion, "rival": pair.rival, "reason": reason}
                logger.warning("a pair cannot be compared", extra=facts)
        self._faults = faults
        return found

    def _new_reports(self, pair: Pair, known: set[str]) -> Iterator[ReportRecord]:
        """Give the reports that were not read before; add the tags of those that are no use."""

        def left_out(tag: str, file: str, reason: str) -> None:
            known.add(tag)
            logger.warning("a report is left out", extra={"file": file, "reason": reason})

        keys = self._settings.keys and self._settings.keys()
        return audited(self._place, self._store.model, pair, keys, left_out, known)

    def act(self, now: Callable[[], float] = time.time) -> list[Decision]:
        """Evaluate, act on the first decision, record it in the history, and return all of them.

        The reports are read without the store's lock, which is then taken to act. If the versions
        are no longer the pair that was weighed, nothing is done until the next evaluation.
        """
        decisions = self.evaluate(now)
        for place, decision in enumerate(decisions):
            if decision.action is not None:
                self._keep_tags(decision)
                with self._store.lock():
                    if decision.pair in pairs(self._store, now(), self._settings.probation):
                        self._carry_out(decision)
                        decisions[place] = replace(decision, is_done=True)
                break  # the other pair is no longer what it was
        return decisions

    def _carry_out(self, decision: Decision) -> None:
        """Move the aliases; a decision is one line of the history, with the figures behind it."""
        store, champion, rival = self._store, decision.pair.champion, decision.pair.rival
        event, reason, evidence = str(decision.action), decision.reason, decision.facts()
        if decision.action == "retire":
            store.drop_alias(
                CHALLENGER, expected=rival, event=event, reason=reason, evidence=evidence
            )
        else:
            store.move_alias(
                CHAMPION, rival, expected=champion, event=event, reason=reason, evidence=evidence
            )
        if decision.action == "promote":
            store.drop_alias(CHALLENGER, expected=rival, event="retire", reason="champion now")
        logger.info("decided", extra={"action": event, "reason": reason})

    def _keep_tags(self, decision: Decision) -> None:
        """Keep the list of the reports that the decision rests on, before anything is done."""
        digest, tags = decision.evidence.digest, decision.evidence.tags
        document = json.dumps({"digest": digest, "tags": tags}).encode() + b"\n"
        files = self._place.files
        with translated(f"cannot write to {files}"):
            files.create(decision_file(self._store.model, digest), document)


def audited(
    place: FeedbackPlace,
    model: str,
    pair: Pair,
    keys: ReceiptKeys | None,
    left_out: Callable[[str, str, str], None],
    known: Container[str] = (),
    only: Container[str] | None = None,
) -> Iterator[ReportRecord]:
    """Give the reports that may be evidence about a pair.

    Args:
        place: The reports.
        model: Name of the model.
        pair: The versions; reports on answers before it came to be may be left out.
        keys: With keys, reports are left out that are not genuine.
        left_out: Called with the tag and the file of each report that cannot be used, and why.
        known: Tags of reports that are not read.
        only: Tags of the reports that are read; None is all.

    """

    def damaged(file: str, reason: str) -> None:
        left_out(PurePosixPath(file).stem, file, reason)

    since = datetime.fromtimestamp(pair.since, UTC).date()
    for report in place.reports(model, since, damaged, known, only):
        reason = None if keys is None else why_not_genuine(report, keys)
        if reason is None:
            yield report
        else:
            left_out(report.tag, f"{model}/reports/{report.day}/{report.tag}.json", reason)


def decision_file(model: str, digest: str) -> str:
    """Return the name of the list of reports that a decision rests on."""
    return f"{model}/decisions/{digest.removeprefix('sha256:')}.json"
