"""One version's files: made of weights, and read back with nothing taken on trust."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import arrays
from mlpserve_model.errors import ModelRejected
from mlpserve_model.files import read_bounded
from mlpserve_model.manifest import GOLDEN_FILE, MODEL_FILE, FileInfo, Manifest
from mlpserve_model.network import Network, Weights, forward
from mlpserve_model.types import Array

__all__ = ["GOLDEN_TOLERANCE", "StoredModel", "model_files", "read_model", "read_verified"]

# How far a probability may be from its golden value: float32 sums differ between machines.
GOLDEN_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version whose files were verified and whose self-test passed."""

    manifest: Manifest
    weights: Weights

    def predict(self, x: Array) -> NDArray[np.float32]:
        """Probabilities (rows, classes) of scaled instances `x` (rows, inputs)."""
        return forward(self.manifest.network, self.weights, x).astype(np.float32, copy=False)


def model_files(draft: Manifest, weights: Weights, golden_inputs: Array) -> dict[str, bytes]:
    """The contents of model.npz and golden.npz: the weights, and how they must answer."""
    golden_inputs = golden_inputs.astype(np.float32)
    # Computed from what a reader will have: float32, in row-major order.
    stored = arrays.decode_weights(data := arrays.encode_weights(weights), draft.network)
    probabilities = StoredModel(draft, stored).predict(golden_inputs)
    golden = {"inputs": golden_inputs, "probabilities": probabilities}
    return {MODEL_FILE: data, GOLDEN_FILE: arrays.encode(golden)}


def read_model(folder: Path, manifest: Manifest) -> StoredModel:
    """Read, verify and self-test the model in a version's folder.

    Raises ModelRejected with what is wrong, or OSError when the volume cannot be read.
    """
    network, files = manifest.network, manifest.files
    limit = arrays.largest_size(arrays.weight_shapes(network))
    data = read_verified(folder, MODEL_FILE, files[MODEL_FILE], limit)
    model = StoredModel(manifest, arrays.decode_weights(data, network))
    shapes = _golden_shapes(network, manifest.golden_rows)
    data = read_verified(folder, GOLDEN_FILE, files[GOLDEN_FILE], arrays.largest_size(shapes))
    _self_test(model, arrays.decode(data, shapes))
    return model


def read_verified(folder: Path, name: str, info: FileInfo, limit: int | None = None) -> bytes:
    """The bytes of one file, of the size and digest that the manifest gives.

    Raises ModelRejected, before reading where there are more than `limit` bytes, or OSError.
    """
    try:
        data = read_bounded(folder / name, info.size if limit is None else min(limit, info.size))
    except FileNotFoundError as error:
        raise ModelRejected(f"{name} is missing") from error
    if len(data) != info.size:
        raise ModelRejected(f"{name} has {len(data)} bytes, expected {info.size}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != info.sha256:
        raise ModelRejected(f"{name} has the digest {digest}, expected {info.sha256}")
    return data


def _golden_shapes(network: Network, rows: int) -> dict[str, tuple[int, ...]]:
    return {"inputs": (rows, network.inputs), "probabilities": (rows, network.classes)}


def _self_test(model: StoredModel, golden: Mapping[str, NDArray[np.float32]]) -> None:
    with np.errstate(all="ignore"):  # finite weights may still overflow: the difference tells
        difference = np.abs(model.predict(golden["inputs"]) - golden["probabilities"]).max()
    if not difference <= GOLDEN_TOLERANCE:  # also when it is NaN
        raise ModelRejected(
            f"the self-test is off by {difference:.3g}, expected at most {GOLDEN_TOLERANCE:g}"
        )
