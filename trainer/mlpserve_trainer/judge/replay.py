"""A decision of the past, computed again from the reports that it rested on."""

import json
from dataclasses import dataclass
from typing import Any

from mlpserve_model import Store, StoreError
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.reader import translated
from mlpserve_trainer.errors import DataError, UsageError
from mlpserve_trainer.judge.decision import Decision, decide
from mlpserve_trainer.judge.evidence import digest_of, weigh
from mlpserve_trainer.judge.judge import JudgeSettings, audited, decision_file
from mlpserve_trainer.judge.pairs import Pair

__all__ = ["Replay", "replay"]

ACTIONS = ("promote", "retire", "rollback")
MAX_BYTES = 2**30
MIN_DIGITS = 4  # of a decision's digest, as it is given
# As nobody says of a file that is not where it was; or it is evidence about nothing, or twice.
NOT_THERE = "it is not there, or no audited report of a row of its own"


@dataclass(frozen=True)
class Replay:
    """A decision and the same decision computed again.

    Attributes:
        event: The line of the history.
        again: What the reports say now.
    """

    event: dict[str, Any]
    again: Decision

    @property
    def differences(self) -> tuple[str, ...]:
        """What is not as it was recorded; nothing if the decision stands."""
        recorded = self.event["evidence"] | {"action": self.event["event"]}
        now = self.again.facts() | {"action": self.again.action}
        return tuple(
            f"{name}: recorded {recorded.get(name)}, now {value}"
            for name, value in now.items()
            if not _same(recorded.get(name), value)
        )


def replay(store: Store, place: FeedbackPlace, digest: str, settings: JudgeSettings) -> Replay:
    """Compute a decision again.

    Args:
        store: The versions.
        place: The reports.
        digest: The digest of the decision's evidence, or how it begins.
        settings: The keys of receipts, to verify them again; alpha is the decision's.

    Raises:
        UsageError: The history has no such decision, or several.
        DataError: A report that it rested on is gone or cannot be used; the message says why.
        StoreError: A version or a report cannot be read.

    """
    event = _find(store, digest)
    facts = event["evidence"]
    try:
        pair = Pair(*(facts[key] for key in ("champion", "rival", "since", "is_probation")))
        alpha, recorded = float(facts["alpha"]), str(facts["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the history's line of this decision is damaged: {error}") from error
    tags = _tags(place, store.model, recorded)
    reasons: dict[str, str] = {}

    def left_out(tag: str, _: str, reason: str) -> None:
        reasons[tag] = reason

    evidence = weigh(
        store,
        pair,
        audited(place, store.model, pair, settings.keys and settings.keys(), left_out, only=tags),
    )
    if unusable := sorted(tags - set(evidence.tags)):
        first = unusable[0]
        raise DataError(
            f"{len(unusable)} of the {len(tags)} reports of this decision cannot be used now, the "
            f"first of them {first}: {reasons.get(first, NOT_THERE)}"
        )
    return Replay(event, decide(pair, evidence, alpha))


def _find(store: Store, digest: str) -> dict[str, Any]:
    wanted = digest.removeprefix("sha256:").lower()
    # The same one twice if a judge was killed when it had recorded it, before it acted.
    found = {
        (e["event"], e["evidence"]["digest"]): e
        for e in store.history()
        if e.get("event") in ACTIONS and _begins(e, wanted)
    }
    if len(wanted) < MIN_DIGITS or len(found) != 1:
        which = "several decisions" if found else "no decision"
        raise UsageError(
            f"the history of {store.model} has {which} {digest!r}: expected how the digest of its "
            f"evidence begins, {MIN_DIGITS} digits or more"
        )
    return found.popitem()[1]


def _begins(event: dict[str, Any], digest: str) -> bool:
    evidence = event.get("evidence")
    if not isinstance(evidence, dict):
        return False
    return str(evidence.get("digest")).removeprefix("sha256:").startswith(digest)


def _tags(place: FeedbackPlace, model: str, digest: str) -> frozenset[str]:
    name = decision_file(model, digest)
    with translated(f"cannot read {place}/{name}"):
        try:
            tags = json.loads(place.files.read(name, MAX_BYTES))["tags"]
            found = frozenset(map(str, tags))
        except FileNotFoundError as error:
            raise DataError(f"{place} has no {name}: was the decision made with it?") from error
        except (UnusableFile, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(f"{place}/{name} is not a list of reports: {error}") from error
    if digest_of(found) != digest:
        raise DataError(f"{place}/{name} is not the list that the decision was made with")
    return found


def _same(recorded: object, now: object) -> bool:
    if isinstance(recorded, int | float) and isinstance(now, float):
        return abs(recorded - now) <= 1e-9 * max(abs(recorded), 1.0)
    return recorded == now
