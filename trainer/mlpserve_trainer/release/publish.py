"""From a fitted network to a judged, published and perhaps promoted version."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

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
from mlpserve_model.process.interrupts import ignore_sigint
from mlpserve_model.store.evidence.reference import (
    REFERENCE_FILE,
    Reference,
    Signals,
    drift,
    read_reference,
)
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.evaluation.scores import Evaluation, evaluate, report, signals_of
from mlpserve_trainer.release.gate import (
    Check,
    Rules,
    accuracy_floor,
    judge,
    no_worse,
    same_signature,
)
from mlpserve_trainer.report.analysis import Comparison
from mlpserve_trainer.report.drift import Predecessor
from mlpserve_trainer.report.html import HtmlReport
from mlpserve_trainer.report.model_card import model_card

__all__ = ["Challenger", "golden_rows", "publish"]

GOLDEN_ROWS = 32
MAX_GOLDEN_ROWS = 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Challenger:
    """A fitted network that may become champion.

    Attributes:
        draft: Its description.
        weights: The weights to be served.
        holdout: The examples that it is judged by.
        evaluation: Its predictions of them.
        page: Its report, complete but for the verdict.
        live: The live holdout: corrections of callers that were not trained on; None without any.
        checks: What was checked before.
        files: More files of the version, by name.
    """

    draft: Draft
    weights: Weights
    holdout: Examples
    evaluation: Evaluation
    page: HtmlReport
    live: Examples | None = None
    checks: tuple[Check, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def publish(store: Store, challenger: Challenger, rules: Rules, alias: str = CHAMPION) -> Manifest:
    """Judge the challenger against the current champion, publish it, and promote it if it passed.

    With another `alias` a version that passed gets that, and the champion stays; the first version
    of all becomes champion.

    The lock is held from the comparison to the promotion. Of two trainers that finish at once, the
    second is compared with the version of the first.

    Raises StoreError when the store cannot be read or written.
    """
    golden = challenger.holdout.scaled(golden_rows(challenger.holdout.labels))
    network, weights = challenger.draft.network, challenger.weights
    signals = signals_of(network, weights, challenger.holdout)
    reference = Reference.of(signals, challenger.holdout.labels, network.classes)
    with store.lock():
        champion = store.aliases().get(CHAMPION)
        predecessor = _predecessor(store, champion, signals)
        checks, comparison = _checks(store, champion, challenger, rules)
        checks += challenger.checks
        draft, page = challenger.draft, challenger.page
        verdict = judge(checks, rules.force_reason)
        scores = report(challenger.evaluation, draft.signature.class_names)
        card = model_card(draft, verdict, scores, page.analysis, comparison)

        def files(version: int) -> dict[str, bytes]:
            return {
                "model_card.md": card,
                "report.html": page.render(version, verdict, comparison, predecessor),
                REFERENCE_FILE: reference.encode(),
                **challenger.files,
            }

        with ignore_sigint():
            manifest = store.publish(draft, verdict, challenger.weights, golden, files)
            _settle(store, manifest, CHAMPION if champion is None else alias)
    return manifest


def golden_rows(labels: Labels) -> npt.NDArray[np.intp]:
    """Return rows for the self-test: the first of each class, then the second of each, ..."""
    turn = np.empty(len(labels), dtype=np.intp)
    classes = np.unique(labels)
    for label in classes:
        rows = np.flatnonzero(labels == label)
        turn[rows] = np.arange(len(rows))
    count = min(max(GOLDEN_ROWS, len(classes)), MAX_GOLDEN_ROWS)
    return np.lexsort((labels, turn))[:count]


def _checks(
    store: Store, champion: int | None, challenger: Challenger, rules: Rules
) -> tuple[list[Check], Comparison | None]:
    """Return the gate's checks, and the champion's predictions if both can be compared."""
    floor = accuracy_floor(challenger.evaluation.accuracy, rules.min_accuracy)
    if champion is None:
        return [floor, Check(True, "there is no champion yet")], None
    try:
        model = store.load(champion)
    except (CorruptVersion, VersionNotFound) as error:
        damaged = f"champion {champion} is damaged, not compared with: {error}"
        return [floor, Check(True, damaged)], None
    checks, comparison = _compare(model, challenger, rules)
    return [floor, *checks], comparison


def _compare(
    champion: StoredModel, challenger: Challenger, rules: Rules
) -> tuple[list[Check], Comparison | None]:
    version = champion.manifest.version
    old, new = champion.manifest.signature, challenger.draft.signature
    same = same_signature(version, old, new, rules.allow_signature_change)
    # Predictions for other inputs, or in other classes, cannot be compared.
    if old.class_names != new.class_names or old.input_shape != new.input_shape:
        return [same], None
    correct = evaluate(champion.manifest.network, champion.weights, challenger.holdout).correct
    comparison = Comparison(version, correct)
    checks = [same, no_worse(challenger.evaluation.correct, comparison, rules.margin)]
    if challenger.live is not None:
        checks.append(_on_live_holdout(champion, challenger, challenger.live, rules.margin))
    return checks, comparison


def _on_live_holdout(
    champion: StoredModel, challenger: Challenger, live: Examples, margin: float
) -> Check:
    """Compare both on what callers corrected, to see whether it was learnt."""
    ours = evaluate(challenger.draft.network, challenger.weights, live)
    theirs = evaluate(champion.manifest.network, champion.weights, live)
    comparison = Comparison(champion.manifest.version, theirs.correct)
    check = no_worse(ours.correct, comparison, margin)
    return Check(
        check.passed, f"live holdout of {len(live)} rows, {ours.accuracy:.4f} right: {check.reason}"
    )


def _predecessor(store: Store, champion: int | None, signals: Signals) -> Predecessor | None:
    """Compare the holdout with the champion's; None where there is nothing to compare with."""
    if champion is None:
        return None
    try:
        reference = read_reference(store, store.manifest(champion))
    except (CorruptVersion, VersionNotFound):
        return None
    if reference is None or len(reference.predicted) <= signals.predicted.max():
        return None
    return Predecessor(champion, reference.rows, drift(reference, reference.count(signals)))


def _settle(store: Store, manifest: Manifest, alias: str) -> None:
    reason, version = "; ".join(manifest.gate.reasons), manifest.version
    if manifest.gate.verdict == "REJECTED":
        store.record("reject", version, reason)
        return
    try:
        before = store.aliases().get(alias)
        store.move_alias(alias, version, expected=before, event="promote", reason=reason)
    except StoreError as error:
        raise StoreError(
            f"version {version} is published, but is not {alias}: {error}; "
            f"mlpserve-models promote {version} --alias {alias} makes it so"
        ) from error
