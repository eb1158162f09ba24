"""The training pipeline: load -> split -> fit -> evaluate -> gate -> publish -> promote."""

import logging
import time
from dataclasses import asdict, dataclass, replace

from mlpserve_model import (
    CHALLENGER,
    CHAMPION,
    Manifest,
    Store,
)
from mlpserve_trainer.corrections.batch import (
    CORRECTIONS_FILE,
    live_holdout,
)
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.evaluation.calibration import expected_calibration_error
from mlpserve_trainer.evaluation.scores import Evaluation, accuracy, evaluate, report
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.fitting.fit import Epoch
from mlpserve_trainer.fitting.progress import Watch, log_epochs
from mlpserve_trainer.fitting.run import fitted
from mlpserve_trainer.release.fingerprint import trained_before
from mlpserve_trainer.release.gate import Check, harmless
from mlpserve_trainer.release.outcome import Outcome
from mlpserve_trainer.release.preconditions import (
    check_limits,
    check_signature,
    check_writable,
)
from mlpserve_trainer.release.publish import Challenger, publish
from mlpserve_trainer.report.analysis import analyse
from mlpserve_trainer.report.html import HtmlReport
from mlpserve_trainer.training.plan import (
    Plan,
    TrainSettings,
    plan_with,
    prepared,
)

__all__ = [
    "Outcome",
    "TrainSettings",
    "champion_of",
    "check_publishable",
    "train",
]


logger = logging.getLogger(__name__)


def champion_of(settings: TrainSettings) -> int | None:
    """Return the version that is champion, None if there is none; raises StoreError."""
    return Store(settings.store, settings.model).aliases().get(CHAMPION)


def train(settings: TrainSettings, watch: Watch = log_epochs) -> Outcome:
    """Train a network, publish it, and promote it if it passes the gate.

    Nothing is printed: `watch` receives every epoch, and milestones are logged.

    Raises TrainerError when no version was published, and StoreError when the store cannot be
    read or written. What would keep the version from being published or promoted, whatever it
    learns, is a UsageError before the first epoch.
    """
    started = time.perf_counter()
    store = Store(settings.store, settings.model)
    plan = prepared(settings)
    data, draft = plan.data, plan.draft
    check_limits(draft, plan.parts.holdout.labels)
    check_writable(store)
    if settings.unless_unchanged and (before := trained_before(store, draft)):
        return _unchanged(store, before, data, time.perf_counter() - started)
    check_signature(store, draft, settings.rules)
    if settings.recipe.augments and not plan.parts.training.is_image:
        logger.info("training without augmentation: the inputs are not uint8 images")
    found, checks = _unless_harmful(settings, _fit(settings, plan, watch), watch)
    data = found.plan.data
    challenger = _challenger(settings, found, checks)
    manifest = publish(store, challenger, settings.rules, settings.alias)
    if settings.checkpoint_dir:
        Checkpoint.of(settings.checkpoint_dir, draft).remove()
    _log_published(manifest)
    if data.is_fallback:
        logger.warning(
            "trained on the digits of scikit-learn, not on MNIST",
            extra={"version": manifest.version},
        )
    table = report(challenger.evaluation, data.class_names)
    return _outcome(store, manifest, data, time.perf_counter() - started, table)


def check_publishable(settings: TrainSettings) -> None:
    """Raise what `train` would raise before its first epoch."""
    store = Store(settings.store, settings.model)
    plan = prepared(settings)
    check_limits(plan.draft, plan.parts.holdout.labels)
    check_writable(store)
    check_signature(store, plan.draft, settings.rules)


def _unchanged(store: Store, before: Manifest, data: Dataset, seconds: float) -> Outcome:
    reason = f"data and recipe are those of version {before.version}"
    logger.info("nothing to train", extra={"reason": reason})
    outcome = _outcome(store, before, data, seconds)
    return replace(outcome, verdict="UNCHANGED", reasons=(reason,))


def _outcome(
    store: Store, manifest: Manifest, data: Dataset, seconds: float, table: str = ""
) -> Outcome:
    return Outcome(
        version=manifest.version,
        verdict=manifest.gate.verdict,
        reasons=manifest.gate.reasons,
        metrics=dict(manifest.metrics),
        digest=manifest.digest,
        seconds=seconds,
        report=table,
        place=f"{store}/{manifest.version}",
        trained_on=f"{data.name}: {len(data.labels):,} rows from {data.source}",
        is_challenger=store.aliases().get(CHALLENGER) == manifest.version,
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A plan that was carried out: the last epoch, and what it predicts of the holdout."""

    plan: Plan
    last: Epoch
    seconds: float
    evaluation: Evaluation


def _fit(settings: TrainSettings, plan: Plan, watch: Watch) -> _Fitted:
    folder, network = settings.checkpoint_dir, plan.draft.network
    checkpoint = Checkpoint.of(folder, plan.draft) if folder else None
    started = time.perf_counter()
    last = fitted(
        network, settings.recipe, plan.parts, settings.seed, watch, checkpoint, settings.resume
    )
    seconds = time.perf_counter() - started
    return _Fitted(plan, last, seconds, evaluate(last.network, last.weights, plan.parts.holdout))


def _unless_harmful(
    settings: TrainSettings, found: _Fitted, watch: Watch
) -> tuple[_Fitted, tuple[Check, ...]]:
    """Return the training and the check of its corrections, or one without them if they harm."""
    plan = found.plan
    if not plan.batch.training:
        return found, ()
    without = plan_with(settings, plan.base, replace(plan.batch, training=()))
    plain = _fit(replace(settings, checkpoint_dir=None), without, watch)
    check = harmless(found.evaluation.correct, plain.evaluation.correct)
    if check.passed:
        return found, (check,)
    logger.warning("corrections refused", extra={"reason": check.reason})
    facts = {**without.draft.extra["corrections"], "refused": asdict(plan.draft.dataset)}
    draft = replace(without.draft, extra={**without.draft.extra, "corrections": facts})
    reason = f"{len(plan.batch.training)} corrections were refused: {check.reason}"
    return replace(plain, plan=replace(without, draft=draft)), (Check(True, reason),)


def _challenger(settings: TrainSettings, found: _Fitted, checks: tuple[Check, ...]) -> Challenger:
    plan, last, evaluation = found.plan, found.last, found.evaluation
    network, parts = last.network, plan.parts
    raw_output = plan.draft.network.output_activation
    analysis = analyse(network, last.weights, parts, last.state, last.temperature, raw_output)
    metrics = {
        "accuracy": evaluation.accuracy,
        "log_loss": evaluation.log_loss,
        "validation_accuracy": accuracy(network, last.weights, parts.validation),
        "training_accuracy": accuracy(network, last.weights, parts.training),
        "training_loss": last.loss,
        "training_seconds": round(found.seconds, 3),
        "calibration_error": expected_calibration_error(analysis.served),
    }
    live = live_holdout(plan.base, plan.batch)
    if live is not None:
        metrics["live_accuracy"] = accuracy(network, last.weights, live)
    draft = replace(plan.draft, network=network, metrics=metrics)
    page = HtmlReport(draft, analysis, plan.data.source)
    files = {CORRECTIONS_FILE: plan.batch.document()} if settings.corrections else {}
    return Challenger(draft, last.weights, parts.holdout, evaluation, page, live, checks, files)


def _log_published(manifest: Manifest) -> None:
    logger.info(
        "published",
        extra={
            "version": manifest.version,
            "verdict": manifest.gate.verdict,
            "accuracy": round(manifest.metrics["accuracy"], 5),
        },
    )
