"""Whether a training was done before: the same data and the same recipe."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from mlpserve_model import (
    CHAMPION,
    CorruptVersion,
    DatasetInfo,
    Draft,
    Manifest,
    Store,
    VersionNotFound,
)
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["trained_before"]


def trained_before(store: Store, draft: Draft) -> Manifest | None:
    """Return the champion or the newest version if it came of the draft's data and recipe.

    None without a champion that can be served: then there is every reason to train. The seed is
    no part of it, nor how strict the gate is. Raises StoreError when the store cannot be read.
    """
    champion = store.aliases().get(CHAMPION)
    if champion is None:
        return None
    try:
        manifests = [store.load(champion).manifest]
    except (CorruptVersion, VersionNotFound):
        return None
    for newest in store.versions()[-1:]:
        # A newest version that is damaged or just pruned is like no version.
        with suppress(CorruptVersion, VersionNotFound):
            manifests.append(store.manifest(newest))
    return next((m for m in manifests if _essence(draft) in (_essence(m), _refused(m))), None)


def _refused(manifest: Draft) -> Any:
    """Return what the training with the corrections that it refused depended on."""
    corrections = manifest.extra.get("corrections")
    refused = corrections.get("refused") if isinstance(corrections, dict) else None
    if not isinstance(refused, dict):
        return None
    name, digest, split = (str(refused.get(key)) for key in ("name", "digest", "split"))
    return _essence(replace(manifest, dataset=DatasetInfo(name, digest, split)))


def _essence(manifest: Draft) -> Any:
    """Return what the training depends on: the digest of the data, and the keys that matter."""
    try:
        recipe = Recipe.recorded(manifest.recipe)
    except UsageError:
        return None, manifest.recipe  # a recipe of another release, like none of ours
    # The digest stands for the data, wherever it came from.
    knobs = replace(recipe, name="", description="", dataset="")
    return manifest.dataset.digest, manifest.dataset.split, manifest.signature.input_maximum, knobs
