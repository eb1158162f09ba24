"""Training a published version again, from what its manifest says."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlpserve_model import Manifest, Store, Weights
from mlpserve_model.format import strict_json
from mlpserve_model.format.arrays import encode_weights
from mlpserve_model.store.location import Location, parse_location
from mlpserve_trainer.corrections.batch import (
    CORRECTIONS_FILE,
    Batch,
    tags_in,
    with_corrections,
)
from mlpserve_trainer.corrections.collect import recall
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.combined import used_files
from mlpserve_trainer.datasets.sources import uses_data_dir
from mlpserve_trainer.datasets.split import Split, split
from mlpserve_trainer.errors import DataError, UsageError
from mlpserve_trainer.fitting.progress import Watch, log_epochs
from mlpserve_trainer.fitting.run import fitted, network_for
from mlpserve_trainer.recipes.recipe import Recipe
from mlpserve_trainer.training.plan import library_versions

__all__ = ["Reproduction", "reproduce", "training_data"]

MAX_BYTES = 2**26  # of a list of corrections


@dataclass(frozen=True)
class Reproduction:
    """How the version trained again compares with the published one.

    * `published_digest`, `digest`: "sha256:<hex>" of both versions' weights.
    * `largest_difference`: of any weight, absolute.
    * `versions`: the libraries whose versions differ, as "numpy 2.1.0, now 2.4.6".
    """

    version: int
    published_digest: str
    digest: str
    largest_difference: float
    versions: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether all weights are the same, bit for bit."""
        return self.digest == self.published_digest


def reproduce(
    store: Store,
    version: int,
    places: DataLocations,
    watch: Watch = log_epochs,
    feedback: Location | None = None,
) -> Reproduction:
    """Train a version again and compare; nothing is published.

    `feedback` is where the reports are now that it was trained on; None is where they were.
    Raises StoreError when the version cannot be read, DataError when the data is not the same,
    and TrainerError when its recipe is not one that this release can follow.
    """
    published = store.load(version)
    manifest = published.manifest
    recipe = Recipe.recorded(manifest.recipe)
    data, parts = training_data(store, manifest, places, feedback)
    last = fitted(network_for(recipe, data), recipe, parts, manifest.seed, watch)
    digest = hashlib.sha256(encode_weights(last.weights)).hexdigest()
    return Reproduction(
        version=version,
        published_digest=manifest.digest,
        digest=f"sha256:{digest}",
        largest_difference=_largest_difference(published.weights, last.weights),
        versions=_changed_versions(manifest),
    )


def training_data(
    store: Store,
    manifest: Manifest,
    places: DataLocations,
    feedback: Location | None = None,
) -> tuple[Dataset, Split]:
    """Return the data that a version was trained on, and its split; raises as `reproduce`."""
    if "imported" in manifest.extra:
        raise UsageError(
            f"version {manifest.version} was imported from a file: there is nothing to train again"
        )
    recipe = Recipe.recorded(manifest.recipe)
    data = load(manifest.dataset.name, _places(places, manifest), used_files(manifest.extra))
    data = with_corrections(data, _corrections(store, manifest, feedback))
    _check_data(data, manifest)
    return data, split(data, recipe.validation_fraction)


def _places(places: DataLocations, manifest: Manifest) -> DataLocations:
    """Return the given place of the data, or else the one it was read from, if that exists."""
    recorded = manifest.extra.get("data_dir")
    if places.data_dir is not None or not uses_data_dir(manifest.dataset.name):
        return places
    if isinstance(recorded, str) and Path(recorded).exists():
        return replace(places, data_dir=Path(recorded))
    return places


def _corrections(store: Store, manifest: Manifest, feedback: Location | None) -> Batch:
    """Return the corrections that the version was trained on, whatever became of them since."""
    recorded = manifest.extra.get("corrections")
    if CORRECTIONS_FILE not in manifest.files or not isinstance(recorded, dict):
        return Batch()
    place = feedback or parse_location(str(recorded.get("place")))
    document = store.document(manifest.version, CORRECTIONS_FILE, MAX_BYTES)
    try:
        training, _ = tags_in(strict_json.parse(document))
    except ValueError as error:
        raise DataError(f"{CORRECTIONS_FILE} cannot be used: {error}") from error
    return Batch(tuple(recall(place, store.model, training))) if training else Batch()


def _check_data(data: Dataset, manifest: Manifest) -> None:
    if data.digest() != manifest.dataset.digest:
        raise DataError(
            f"data set {data.name} is not the one that version {manifest.version} was trained "
            f"on: expected {manifest.dataset.digest}, got {data.digest()}; see --data-dir"
        )
    maximum = manifest.signature.input_maximum
    if data.input_maximum != maximum:
        raise DataError(
            f"data set {data.name} has the maximum {data.input_maximum:g}, and version "
            f"{manifest.version} was trained on values of 0 to {maximum:g}"
        )


def _largest_difference(one: Weights, other: Weights) -> float:
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a - b).max()) for x, y in pairs for a, b in zip(x, y, strict=True))


def _changed_versions(manifest: Manifest) -> tuple[str, ...]:
    now = library_versions()
    return tuple(
        f"{name} {version}, now {now.get(name)}"
        for name, version in manifest.libraries.items()
        if now.get(name) != version
    )
