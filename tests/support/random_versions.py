"""Versions with random networks of every kind that the format knows, in memory."""

import hashlib
from datetime import UTC, datetime
from math import prod

import numpy as np

from mlpserve_model import (
    DatasetInfo,
    Draft,
    FileInfo,
    InputValues,
    Layer,
    Network,
    Signature,
    StoredModel,
    Verdict,
    Weights,
)
from mlpserve_model.format.manifest import encode_manifest
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_model.format.version_files import model_files
from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from mlpserve_model.nn.types import Array

__all__ = ["random_inputs", "random_version", "stored"]

SHAPES = ((4,), (7,), (2, 3), (1, 4, 4), (28,))


def stored(network: Network, weights: Weights, signature: Signature) -> StoredModel:
    """Return a version as the store would give it."""
    files = model_files(network, weights, np.zeros((1, network.inputs), np.float32))
    draft = Draft(
        model="random.net-1", network=network, signature=signature,
        dataset=DatasetInfo("noise", f"sha256:{'1' * 64}", "none"), recipe={}, seed=0,
        libraries={"mlpserve": "0"}, metrics={"accuracy": 0.5}, input_values=_values(signature),
    )  # fmt: skip
    infos = {k: FileInfo(hashlib.sha256(d).hexdigest(), len(d)) for k, d in files.items()}
    created = datetime(2025, 1, 2, tzinfo=UTC)
    document = encode_manifest(
        draft, Verdict("PROMOTED"), infos, version=3, created=created, golden_rows=1
    )
    return StoredModel(read_manifest(document), weights)


def _values(signature: Signature) -> InputValues:
    if signature.input_kind == "pixels":
        return InputValues("raw", 0.0, signature.input_maximum)
    return InputValues(
        "real", -3.5, 1e30, tuple(0.1 * i for i in range(prod(signature.input_shape)))
    )


def random_version(seed: int) -> StoredModel:
    """Return a version with 1 to 5 layers; every activation comes, and pixels and real inputs."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    layers = 1 + seed % 5
    output = tuple(OUTPUT)[seed % len(OUTPUT)]
    classes = int(rng.integers(2, 12))
    sizes = (int(np.prod(shape)), *map(int, rng.integers(1, 40, layers - 1)), classes)
    hidden = tuple(str(name) for name in rng.choice(list(HIDDEN), layers - 1))
    network = Network(sizes, (*hidden, output))
    weights = tuple(
        Layer(
            (rng.normal(size=shape) * np.sqrt(2 / shape[0])).astype(np.float32),
            rng.normal(size=shape[1]).astype(np.float32),
        )
        for shape in network.layer_shapes
    )
    names = tuple(f'"{i}" \\ ?? é*/\n' for i in range(classes))
    kind, maximum = ("pixels", 16.0) if seed % 2 else ("real", 1.0)
    return stored(network, weights, Signature(shape, maximum, names, kind))


def random_inputs(version: StoredModel, rows: int) -> Array:
    """Return scaled instances for a version, (rows, inputs)."""
    rng = np.random.default_rng(rows)
    shape = (rows, version.manifest.network.inputs)
    if version.manifest.signature.input_kind == "pixels":
        return rng.random(shape, np.float32)
    return rng.normal(size=shape).astype(np.float32)
