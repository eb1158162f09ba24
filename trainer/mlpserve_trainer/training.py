"""The whole path: load -> split -> fit -> evaluate -> gate -> publish -> promote."""

import logging
import math
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs
from threadpoolctl import threadpool_limits

from mlpserve_model import CHAMPION, Gate, Manifest, Network, Store
from mlpserve_model import Dataset as DatasetFacts
from mlpserve_model.store.location import Location
from mlpserve_trainer.datasets import Dataset, Places, load
from mlpserve_trainer.datasets.split import Split, split
from mlpserve_trainer.evaluation.calibration import cooled, expected_error, fit_temperature
from mlpserve_trainer.evaluation.scores import accuracy, evaluate, probabilities, report
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.fitting.fit import Epoch, fit
from mlpserve_trainer.fitting.progress import Watch, log_epochs
from mlpserve_trainer.recipe import Recipe, load_recipe
from mlpserve_trainer.release.fingerprint import trained_before
from mlpserve_trainer.release.gate import Rules
from mlpserve_trainer.release.publish import Challenger, publish
from mlpserve_trainer.report.analysis import findings
from mlpserve_trainer.report.html import Page

__all__ = [
    "Outcome",
    "TrainSettings",
    "champion_of",
    "default_cache_dir",
    "fitted",
    "library_versions",
    "network_for",
    "train",
]

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Return where fetched data sets are kept, as each system has it."""
    return platformdirs.user_cache_path("mlpserve")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that one training run depends on.

    * `store`, `model`: where the version is published.
    * `recipe`: what to train on, and how; see `load_recipe`.
    * `seed`: of the initial weights and the order of the rows.
    * `data_dir`: the folder or file that data sets `mnist`, `idx` and `npz` are read from.
    * `cache_dir`: where MNIST is kept once it was fetched.
    * `rules`: how strict the gate is.
    * `checkpoint_dir`: where the state after each epoch is kept until it is published, if at all.
    * `resume`: go on from the checkpoint of the same training, where there is one.
    * `unless_unchanged`: train nothing when the champion or the newest version came of the same
      data and recipe.
    """

    store: Location = Path("models")
    model: str = "mnist"
    recipe: Recipe = field(default_factory=load_recipe)
    seed: int = 0
    data_dir: Path | None = None
    cache_dir: Path = field(default_factory=default_cache_dir)
    rules: Rules = field(default_factory=Rules)
    checkpoint_dir: Path | None = None
    resume: bool = False
    unless_unchanged: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a training run.

    * `version`: the number of the published version; when UNCHANGED, of the one before.
    * `verdict`: PROMOTED, REJECTED, FORCED or UNCHANGED, for these `reasons`.
    * `metrics`: accuracy and the rest, by name.
    * `digest`: "sha256:<hex>" of the weights.
    * `seconds`: from start to end.
    * `report`: precision, recall and F1 of each class on the holdout, as a table.
    """

    version: int
    verdict: str
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    digest: str
    seconds: float
    report: str

    def facts(self) -> dict[str, Any]:
        """Return all but the report, as it is printed for programs."""
        return {key: value for key, value in asdict(self).items() if key != "report"}


def champion_of(settings: TrainSettings) -> int | None:
    """Return the version that is champion in the store, if there is one; raises StoreError."""
    return Store(settings.store, settings.model).aliases().get(CHAMPION)


def train(settings: TrainSettings, watch: Watch = log_epochs) -> Outcome:
    """Train a network, publish it, and promote it when it passes the gate.

    Nothing is printed; `watch` sees every epoch, and the log has the milestones.
    Raises TrainerError when no version came of it, and StoreError when the store refuses.
    """
    started = time.perf_counter()
    store = Store(settings.store, settings.model)
    # A store that cannot be written should say so now, not after the training.
    with store.lock():
        store.aliases()
    data = load(settings.recipe.dataset, Places(settings.data_dir, settings.cache_dir))
    parts = split(data, settings.recipe.validation_fraction)
    draft = _draft(settings, network_for(settings.recipe, data), data, parts)
    if settings.unless_unchanged and (before := trained_before(store, draft)):
        return _unchanged(before, time.perf_counter() - started)
    if settings.recipe.augments and not parts.training.are_pictures:
        logger.info("trained on as they are: the inputs are no pictures of whole-number pixels")
    challenger = _fit_challenger(settings, draft, parts, watch)
    manifest = publish(store, challenger, settings.rules)
    if settings.checkpoint_dir:
        Checkpoint.of(settings.checkpoint_dir, challenger.draft).remove()
    logger.info(
        "published version %d: %s", manifest.version, manifest.gate.verdict, extra=_facts(manifest)
    )
    return Outcome(
        version=manifest.version,
        verdict=manifest.gate.verdict,
        reasons=manifest.gate.reasons,
        metrics=dict(manifest.metrics),
        digest=manifest.digest,
        seconds=time.perf_counter() - started,
        report=report(challenger.evaluation, data.class_names),
    )


def fitted(
    network: Network,
    recipe: Recipe,
    parts: Split,
    seed: int,
    watch: Watch,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> Epoch:
    """Fit a network, saving every epoch where there is a checkpoint; return the last epoch.

    Raises TrainerError when it diverges, or when the checkpoint cannot be read.
    """
    state = checkpoint.load() if checkpoint and resume else None
    if state:
        logger.info("going on after epoch %d", state.epochs)
    # One thread in each product: two parts of the network side by side are faster than one product
    # on two threads, and the weights do not depend on the number of cores (docs/training.md).
    with threadpool_limits(1, user_api="blas"):
        epochs = fit(network, recipe, parts.training, parts.validation, seed, state)
        try:
            *_, last = watch(checkpoint.saving(epochs) if checkpoint else epochs, recipe.epochs)
        except KeyboardInterrupt as interrupt:
            saved = checkpoint.load() if checkpoint else None
            if saved is None:
                raise
            hint = f"the same command with --resume goes on after epoch {saved.epochs}"
            raise KeyboardInterrupt(hint) from interrupt
    if recipe.calibration == "temperature":
        answers = probabilities(network, last.weights, parts.validation)
        temperature = fit_temperature(answers, parts.validation.labels)
        return replace(last, weights=cooled(last.weights, temperature))
    return last


def _unchanged(before: Manifest, seconds: float) -> Outcome:
    reason = f"data and recipe are those of version {before.version}"
    logger.info("nothing to train: %s", reason)
    return Outcome(
        version=before.version,
        verdict="UNCHANGED",
        reasons=(reason,),
        metrics=dict(before.metrics),
        digest=before.digest,
        seconds=seconds,
        report="",
    )


def _fit_challenger(
    settings: TrainSettings, draft: Manifest, parts: Split, watch: Watch
) -> Challenger:
    recipe, network = settings.recipe, draft.network
    folder = settings.checkpoint_dir
    checkpoint = Checkpoint.of(folder, draft) if folder else None
    started = time.perf_counter()
    last = fitted(network, recipe, parts, settings.seed, watch, checkpoint, settings.resume)
    seconds = time.perf_counter() - started
    evaluation = evaluate(network, last.weights, parts.holdout)
    facts = findings(network, last.weights, parts, last.state)
    metrics = {
        "accuracy": evaluation.accuracy,
        "log_loss": evaluation.log_loss,
        "validation_accuracy": accuracy(network, last.weights, parts.validation),
        "training_accuracy": accuracy(network, last.weights, parts.training),
        "training_loss": last.loss,
        "training_seconds": round(seconds, 3),
        "calibration_error": expected_error(facts.before),
    }
    draft = replace(draft, metrics=metrics)
    return Challenger(draft, last.weights, parts.holdout, evaluation, Page(draft, facts))


def network_for(recipe: Recipe, data: Dataset) -> Network:
    """Return the network of a recipe, with as many inputs and classes as the data has."""
    sizes = (math.prod(data.input_shape), *recipe.hidden, len(data.class_names))
    return Network(sizes, recipe.hidden_activation, recipe.output_activation)


def library_versions() -> dict[str, str]:
    """Return the versions of what the weights depend on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("mlpserve", "numpy")
    }


def _draft(settings: TrainSettings, network: Network, data: Dataset, parts: Split) -> Manifest:
    return Manifest(
        model=settings.model,
        network=network,
        input_shape=data.input_shape,
        input_maximum=data.input_maximum,
        class_names=data.class_names,
        dataset=DatasetFacts(data.name, data.digest(), parts.description),
        recipe=settings.recipe.as_dict(),
        seed=settings.seed,
        libraries=library_versions(),
        metrics={},
        gate=Gate("REJECTED", ("not judged",)),
        extra={"sources": list(map(asdict, data.origins))} if data.origins else {},
    )


def _facts(manifest: Manifest) -> dict[str, object]:
    return {
        "accuracy": round(manifest.metrics["accuracy"], 5),
        "reasons": "; ".join(manifest.gate.reasons),
    }
