"""One version's files: made of weights, and read back with nothing taken on trust."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.errors import CorruptVersion
from mlpserve_model.format import arrays
from mlpserve_model.format.manifest import GOLDEN_FILE, MODEL_FILE, FileInfo, Manifest
from mlpserve_model.nn.network import Network, Weights, forward
from mlpserve_model.nn.types import Array

__all__ = [
    "GOLDEN_TOLERANCE",
    "Read",
    "StoredModel",
    "compare",
    "model_files",
    "read_model",
    "read_verified",
]

# Reads a version's file by its name, up to a number of bytes: CorruptVersion when there are more.
Read = Callable[[str, int], bytes]
# How far a probability may be from its golden value: float32 sums differ between machines.
GOLDEN_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version whose files were verified and whose self-test passed."""

    manifest: Manifest
    weights: Weights

    def predict(self, x: Array) -> NDArray[np.float32]:
        """Probabilities (rows, classes) of scaled instances `x` (rows, inputs)."""
        return _probabilities(self.manifest.network, self.weights, x)


def model_files(network: Network, weights: Weights, golden_inputs: Array) -> dict[str, bytes]:
    """The contents of model.npz and golden.npz: the weights, and how they must answer.

    Raises CorruptVersion for what no reader would accept.
    """
    shapes = _golden_shapes(network, len(golden_inputs))
    if golden_inputs.shape != shapes["inputs"]:
        raise CorruptVersion(f"golden inputs {golden_inputs.shape}, expected {shapes['inputs']}")
    golden_inputs = golden_inputs.astype(np.float32)
    # Computed from what a reader will have: float32, in row-major order.
    stored = arrays.decode_weights(data := arrays.encode_weights(weights), network)
    with np.errstate(all="ignore"):  # weights that overflow are refused two lines below
        probabilities = _probabilities(network, stored, golden_inputs)
    golden = arrays.encode({"inputs": golden_inputs, "probabilities": probabilities})
    arrays.decode(golden, shapes)
    return {MODEL_FILE: data, GOLDEN_FILE: golden}


def read_model(read: Read, manifest: Manifest) -> StoredModel:
    """Read, verify and self-test a version's model.

    Raises CorruptVersion with what is wrong, or OSError when the store cannot be read.
    """
    network, files = manifest.network, manifest.files
    limit = arrays.largest_size(arrays.weight_shapes(network))
    data = read_verified(read, MODEL_FILE, files[MODEL_FILE], limit)
    model = StoredModel(manifest, arrays.decode_weights(data, network))
    shapes = _golden_shapes(network, manifest.golden_rows)
    data = read_verified(read, GOLDEN_FILE, files[GOLDEN_FILE], arrays.largest_size(shapes))
    _self_test(model, arrays.decode(data, shapes))
    return model


def read_verified(read: Read, name: str, info: FileInfo, limit: int) -> bytes:
    """The bytes of one file, of the size and digest that the manifest gives.

    Raises CorruptVersion, before reading where there are more than `limit` bytes, or OSError.
    """
    try:
        data = read(name, min(limit, info.size))
    except FileNotFoundError as error:
        raise CorruptVersion(f"{name} is missing") from error
    compare(name, FileInfo(hashlib.sha256(data).hexdigest(), len(data)), info)
    return data


def compare(name: str, found: FileInfo, info: FileInfo) -> None:
    """Raise CorruptVersion for a file that is not what the manifest says."""
    if found.size != info.size:
        raise CorruptVersion(f"{name} has {found.size} bytes, expected {info.size}")
    if found.sha256 != info.sha256:
        raise CorruptVersion(f"{name} has the digest {found.sha256}, expected {info.sha256}")


def _probabilities(network: Network, weights: Weights, x: Array) -> NDArray[np.float32]:
    return forward(network, weights, x).astype(np.float32, copy=False)


def _golden_shapes(network: Network, rows: int) -> dict[str, tuple[int, ...]]:
    return {"inputs": (rows, network.inputs), "probabilities": (rows, network.classes)}


def _self_test(model: StoredModel, golden: Mapping[str, NDArray[np.float32]]) -> None:
    with np.errstate(all="ignore"):  # finite weights may still overflow: the difference tells
        difference = np.abs(model.predict(golden["inputs"]) - golden["probabilities"]).max()
    if not difference <= GOLDEN_TOLERANCE:  # also when it is NaN
        raise CorruptVersion(
            f"the self-test is off by {difference:.3g}, expected at most {GOLDEN_TOLERANCE:g}"
        )
