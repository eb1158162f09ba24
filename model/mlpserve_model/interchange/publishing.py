"""Imported networks as versions of the store."""

import hashlib
import math
from pathlib import Path
from typing import Any

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import (
    DatasetInfo,
    Draft,
    InputValues,
    Manifest,
    Signature,
    Verdict,
)
from mlpserve_model.interchange.files import open_file
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.random_inputs import golden_inputs
from mlpserve_model.process.versions import version_of
from mlpserve_model.store.store import Store

__all__ = ["draft_of", "publish_unjudged"]

_MAXIMUM = 255.0  # of pixels, where nothing is said


def draft_of(found: ImportedNetwork, path: Path, model: str) -> Draft:
    """Return the description of a version that was imported from a file.

    What it was trained on is not known, unless the file is an export of a version.

    Raises:
        UnsupportedModel: The names or the shape do not fit the network.

    """
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = dict(found.metadata.origin)
    dataset = DatasetInfo(
        origin.pop("dataset", "unknown"), origin.pop("dataset_digest", "unknown"), "unknown"
    )
    imported = {"file": _text(path.name), "sha256": digest, **origin}
    if found.notes:
        imported["check"] = "; ".join(found.notes)
    signature = _signature(found)
    extra: dict[str, Any] = {"imported": imported}
    libraries = {name: version_of(name) for name in ("mlpserve", "numpy")}
    return Draft(
        model=model, network=found.network, signature=signature, dataset=dataset,
        recipe={}, seed=0, libraries=libraries, metrics={}, extra=extra,
        input_values=_input_values(found, signature),
    )  # fmt: skip


def publish_unjudged(store: Store, found: ImportedNetwork, path: Path, reason: str) -> Manifest:
    """Publish an imported network that no holdout has judged; no alias moves.

    Raises:
        UnsupportedModel: The names or the shape do not fit the network.
        StoreError: The store refuses.

    """
    verdict = Verdict("FORCED", (f"forced: {reason}", "imported without a holdout"))
    return store.publish(
        draft_of(found, path, store.model), verdict, found.weights, golden_inputs(found)
    )


def _signature(found: ImportedNetwork) -> Signature:
    network, said = found.network, found.metadata
    shape = said.input_shape or (network.inputs,)
    if math.prod(shape) != network.inputs:
        raise UnsupportedModel(
            f"inputs of shape {shape} for a network of {network.inputs} inputs: "
            "give the shape of one with --input-shape"
        )
    names = said.class_names or tuple(map(str, range(network.classes)))
    if len(names) != network.classes or len(set(names)) < len(names) or "" in names:
        raise UnsupportedModel(
            f"{len(names)} class names for {network.classes} classes: expected a different one "
            "for each, with --class-names"
        )
    kind = said.input_kind or "real"
    maximum = (said.input_maximum or _MAXIMUM) if kind == "pixels" else 1.0
    return Signature(shape, maximum, names, kind)


def _input_values(found: ImportedNetwork, signature: Signature) -> InputValues | None:
    """Return what the file says, unless it is of inputs of the other kind."""
    values = found.metadata.input_values
    fits = values is not None and (values.kind == "real") == (signature.input_kind == "real")
    return values if fits else None


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
