"""What a training depends on, and what is known of its version before the first epoch."""

import logging
import platform
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlpserve_model import CHAMPION, DatasetInfo, Draft, InputValues, Network, Signature
from mlpserve_model.process.folders import cache_folder
from mlpserve_model.process.versions import version_of
from mlpserve_model.store.location import Location
from mlpserve_trainer.corrections.batch import Batch, choose, with_corrections
from mlpserve_trainer.corrections.collect import CorrectionSettings, collect
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.scaling import listed_means
from mlpserve_trainer.datasets.split import Split, split
from mlpserve_trainer.fitting.run import network_for
from mlpserve_trainer.recipes.loading import load_recipe
from mlpserve_trainer.recipes.recipe import Recipe
from mlpserve_trainer.release.gate import Rules

__all__ = ["Plan", "TrainSettings", "library_versions", "plan_with", "prepared"]

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


@dataclass(frozen=True, eq=False)
class Plan:
    """The data of a training, and what it is to become.

    Attributes:
        base: The data set without corrections.
        batch: The corrections.
        data: The data set with them.
        parts: Its split.
        draft: The description of the version.
    """

    base: Dataset
    batch: Batch
    data: Dataset
    parts: Split
    draft: Draft


def prepared(settings: TrainSettings) -> Plan:
    """Load the data and the corrections of a training; raises TrainerError or StoreError."""
    data = load(settings.recipe.dataset, DataLocations(settings.data_dir, settings.cache_dir))
    if settings.corrections is None:
        return plan_with(settings, data, Batch())
    found = collect(settings.corrections, settings.model)
    batch = choose(found, data, settings.corrections.share, settings.corrections.source_share)
    logger.info("corrections", extra=batch.facts())
    return plan_with(settings, data, batch)


def plan_with(settings: TrainSettings, base: Dataset, batch: Batch) -> Plan:
    """Return the plan of a training on a data set with these corrections."""
    data = with_corrections(base, batch)
    parts = split(data, settings.recipe.validation_fraction)
    draft = _draft(settings, network_for(settings.recipe, data), data, parts)
    if settings.corrections is not None:
        facts = {"place": _written(settings.corrections.place), **batch.facts()}
        draft = replace(draft, extra={**draft.extra, "corrections": facts})
    return Plan(base, batch, data, parts, draft)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that the weights depend on."""
    return {"python": platform.python_version()} | {
        name: version_of(name) for name in ("mlpserve", "numpy")
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
