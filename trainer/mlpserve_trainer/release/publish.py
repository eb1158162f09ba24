"""From a fitted network to a judged, published and perhaps promoted version."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model import (
    CHAMPION,
    CorruptVersion,
    Draft,
    Manifest,
    Store,
    StoredModel,
    StoreError,
    VersionNotFound,
    Weights,
)
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.evaluation.scores import Evaluation, evaluate, report
from mlpserve_trainer.release.gate import (
    Check,
    Rules,
    accuracy_floor,
    judge,
    no_worse,
    same_signature,
)
from mlpserve_trainer.report.html import Page
from mlpserve_trainer.report.model_card import model_card

__all__ = ["Challenger", "golden_rows", "publish"]

GOLDEN_ROWS = 32
MOST_GOLDEN_ROWS = 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Challenger:
    """A fitted network that wants to be champion.

    * `draft`: its description.
    * `weights`: what it would be served with.
    * `holdout`: the examples that decide.
    * `evaluation`: its answers to them.
    * `page`: its report, all drawn but for the verdict.
    """

    draft: Draft
    weights: Weights
    holdout: Examples
    evaluation: Evaluation
    page: Page


def publish(store: Store, challenger: Challenger, rules: Rules) -> Manifest:
    """Judge the challenger against the champion of this moment, publish it, promote it.

    The lock is held from the comparison to the promotion: whichever of two trainers comes
    second is compared with the first one's version, so the champion never goes back.
    Raises StoreError when the store cannot be read or written.
    """
    golden = challenger.holdout.scaled(golden_rows(challenger.holdout.labels))
    with store.lock():
        champion = store.aliases().get(CHAMPION)
        checks, champion_right = _checks(store, champion, challenger, rules)
        draft, page = challenger.draft, challenger.page
        verdict = judge(checks, rules.force_reason)
        scores = report(challenger.evaluation, draft.signature.class_names)
        card = model_card(draft, verdict, scores, page.facts, champion, champion_right)
        files = {
            "model_card.md": card,
            "report.html": page.html(verdict, champion, champion_right),
        }
        with _finishing():
            manifest = store.publish(draft, verdict, challenger.weights, golden, files)
            _settle(store, manifest, champion)
    return manifest


def golden_rows(labels: Labels) -> npt.NDArray[np.intp]:
    """Choose rows for the self-test: the first of every class, then the second of every one, ..."""
    turn = np.empty(len(labels), dtype=np.intp)
    classes = np.unique(labels)
    for label in classes:
        rows = np.flatnonzero(labels == label)
        turn[rows] = np.arange(len(rows))
    count = min(max(GOLDEN_ROWS, len(classes)), MOST_GOLDEN_ROWS)
    return np.lexsort((labels, turn))[:count]


Right = npt.NDArray[np.bool_]


def _checks(
    store: Store, champion: int | None, challenger: Challenger, rules: Rules
) -> tuple[list[Check], Right | None]:
    """Put every question that can be put; a champion that cannot be read asks none.

    Returns the checks, and which rows of the holdout the champion predicted right, if asked.
    """
    floor = accuracy_floor(challenger.evaluation.accuracy, rules.min_accuracy)
    if champion is None:
        return [floor, Check(True, "there is no champion yet")], None
    try:
        model = store.load(champion)
    except (CorruptVersion, VersionNotFound) as error:
        damaged = f"champion {champion} is damaged, not compared with: {error}"
        return [floor, Check(True, damaged)], None
    checks, right = _compare(model, challenger, rules)
    return [floor, *checks], right


def _compare(
    champion: StoredModel, challenger: Challenger, rules: Rules
) -> tuple[list[Check], Right | None]:
    version = champion.manifest.version
    old, new = champion.manifest.signature, challenger.draft.signature
    same = same_signature(version, old, new, rules.allow_signature_change)
    # Answers to other questions, or in other classes, cannot be compared.
    if old.class_names != new.class_names or old.input_shape != new.input_shape:
        return [same], None
    right = evaluate(champion.manifest.network, champion.weights, challenger.holdout).correct
    return [same, no_worse(version, challenger.evaluation.correct, right, rules.margin)], right


def _settle(store: Store, manifest: Manifest, champion: int | None) -> None:
    reason, version = "; ".join(manifest.gate.reasons), manifest.version
    if manifest.gate.verdict == "REJECTED":
        store.record("reject", version, reason)
        return
    try:
        store.move_alias(CHAMPION, version, expected=champion, event="promote", reason=reason)
    except StoreError as error:
        raise StoreError(
            f"version {version} is published, but is not champion: {error}; "
            f"mlpserve-models promote {version} makes it so"
        ) from error


@contextmanager
def _finishing() -> Iterator[None]:
    """Put Ctrl-C off for the few milliseconds in which a version is published and promoted."""
    # Only the main thread is ever interrupted, and only it may set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(
        signal.SIGINT, lambda *_: logger.warning("too late to interrupt: publishing")
    )
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
