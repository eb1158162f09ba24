"""The training pipeline: load -> split -> fit -> evaluate -> gate -> publish -> promote."""

import logging
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlpserve_model import (
    CHALLENGER,
    CHAMPION,
    DatasetInfo,
    Draft,
    InputValues,
    Manifest,
    Network,
    Signature,
    Store,
)
from mlpserve_model.process.folders import cache_folder
from mlpserve_model.store.location import Location
from mlpserve_trainer.corrections.batch import (
    CORRECTIONS_FILE,
    Batch,
    choose,
    live_holdout,
    with_corrections,
)
from mlpserve_trainer.corrections.collect import CorrectionSettings, collect
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.scaling import listed_means
from mlpserve_trainer.datasets.split import Split, split
from mlpserve_trainer.evaluation.calibration import expected_calibration_error
from mlpserve_trainer.evaluation.scores import Evaluation, accuracy, evaluate, report
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.fitting.fit import Epoch
from mlpserve_trainer.fitting.progress import Watch, log_epochs
from mlpserve_trainer.fitting.run import fitted, network_for
from mlpserve_trainer.recipe import Recipe, load_recipe
from mlpserve_trainer.release.fingerprint import trained_before
from mlpserve_trainer.release.gate import Check, Rules, harmless
from mlpserve_trainer.release.outcome import Outcome
from mlpserve_trainer.release.preconditions import (
    check_limits,
    check_signature,
    check_writable,
)
from mlpserve_trainer.release.publish import Challenger, publish
from mlpserve_trainer.report.analysis import analyse
from mlpserve_trainer.report.html import HtmlReport

__all__ = [
    "Outcome",
    "TrainSettings",
    "champion_of",
    "check_publishable",
    "library_versions",
    "train",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that one training run depends on.

    Attributes:
        store: Where the version is published.
        model: Name of the model in the store.
        recipe: What to train on, and how; see `load_recipe`.
        seed: Seed of the initial weights, the order of the rows, augmentation and dropout.
        data_dir: Folder or file that the data sets `mnist`, `idx` and `npz` are read from.
        cache_dir: Folder where MNIST is kept after it was fetched.
        rules: How strict the gate is.
        checkpoint_dir: Folder of the state after each epoch until publication; None for none.
        resume: Whether to resume from the checkpoint of the same training, if there is one.
        corrections: Which corrections of callers are added to the training rows; None for none.
        alias: Alias of the version if it passes the gate: champion, or challenger, about which
            the judge decides.
        unless_unchanged: Whether to skip the training when the champion or the newest version
            has the same data and recipe.
    """

    store: Location = Path("models")
    model: str = "mnist"
    recipe: Recipe = field(default_factory=load_recipe)
    seed: int = 0
    data_dir: Path | None = None
    cache_dir: Path = field(default_factory=cache_folder)
    rules: Rules = field(default_factory=Rules)
    checkpoint_dir: Path | None = None
    resume: bool = False
    corrections: CorrectionSettings | None = None
    alias: str = CHAMPION
    unless_unchanged: bool = False


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
    plan = _prepared(settings)
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
    plan = _prepared(settings)
    check_limits(plan.draft, plan.parts.holdout.labels)
    check_writable(store)
    check_signature(store, plan.draft, settings.rules)


@dataclass(frozen=True, eq=False)
class _Plan:
    """The data of a training, what callers corrected of it, and what it is to become."""

    base: Dataset
    batch: Batch
    data: Dataset
    parts: Split
    draft: Draft


def _prepared(settings: TrainSettings) -> _Plan:
    data = load(settings.recipe.dataset, DataLocations(settings.data_dir, settings.cache_dir))
    if settings.corrections is None:
        return _plan(settings, data, Batch())
    found = collect(settings.corrections, settings.model)
    batch = choose(found, data, settings.corrections.share)
    logger.info("corrections", extra=batch.facts())
    return _plan(settings, data, batch)


def _plan(settings: TrainSettings, base: Dataset, batch: Batch) -> _Plan:
    data = with_corrections(base, batch)
    parts = split(data, settings.recipe.validation_fraction)
    draft = _draft(settings, network_for(settings.recipe, data), data, parts)
    if settings.corrections is not None:
        facts = {"place": _written(settings.corrections.place), **batch.facts()}
        draft = replace(draft, extra={**draft.extra, "corrections": facts})
    return _Plan(base, batch, data, parts, draft)


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

    plan: _Plan
    last: Epoch
    seconds: float
    evaluation: Evaluation


def _fit(settings: TrainSettings, plan: _Plan, watch: Watch) -> _Fitted:
    folder, network = settings.checkpoint_dir, plan.draft.network
    checkpoint = Checkpoint.of(folder, plan.draft) if folder else None
    started = time.perf_counter()
    last = fitted(
        network, settings.recipe, plan.parts, settings.seed, watch, checkpoint, settings.resume
    )
    seconds = time.perf_counter() - started
    return _Fitted(plan, last, seconds, evaluate(network, last.weights, plan.parts.holdout))


def _unless_harmful(
    settings: TrainSettings, found: _Fitted, watch: Watch
) -> tuple[_Fitted, tuple[Check, ...]]:
    """Return the training and the check of its corrections, or one without them if they harm."""
    plan = found.plan
    if not plan.batch.training:
        return found, ()
    without = _plan(settings, plan.base, replace(plan.batch, training=()))
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
    network, parts = plan.draft.network, plan.parts
    analysis = analyse(network, last.weights, parts, last.state, last.temperature)
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
    draft = replace(plan.draft, metrics=metrics)
    page = HtmlReport(draft, analysis, plan.data.source)
    files = {CORRECTIONS_FILE: plan.batch.document()} if settings.corrections else {}
    return Challenger(draft, last.weights, parts.holdout, evaluation, page, live, checks, files)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that the weights depend on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("mlpserve", "numpy")
    }


def _draft(settings: TrainSettings, network: Network, data: Dataset, parts: Split) -> Draft:
    return Draft(
        model=settings.model,
        network=network,
        signature=Signature(
            data.input_shape, data.input_maximum, data.class_names, data.input_kind
        ),
        dataset=DatasetInfo(data.name, data.digest(), parts.description),
        recipe=settings.recipe.as_dict(),
        seed=settings.seed,
        libraries=library_versions(),
        metrics={},
        input_values=_input_values(data, parts),
        extra=_extra(settings, data),
    )


def _input_values(data: Dataset, parts: Split) -> InputValues:
    values = data.values()
    if parts.scaling is None:
        return values
    return replace(values, means=listed_means(-parts.scaling.offset / parts.scaling.factor))


def _extra(settings: TrainSettings, data: Dataset) -> dict[str, Any]:
    """Return where the data came from, so that `reproduce` finds it again."""
    extra: dict[str, Any] = {"sources": list(map(asdict, data.origins))} if data.origins else {}
    if settings.data_dir:
        extra["data_dir"] = _written(settings.data_dir)
    return extra


def _written(place: Location) -> str:
    """Return a place as JSON can hold it: names of files may be any bytes."""
    text = str(place.absolute() if isinstance(place, Path) else place)
    return text.encode("utf-8", "backslashreplace").decode()


def _log_published(manifest: Manifest) -> None:
    logger.info(
        "published",
        extra={
            "version": manifest.version,
            "verdict": manifest.gate.verdict,
            "accuracy": round(manifest.metrics["accuracy"], 5),
        },
    )
