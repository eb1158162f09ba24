"""The files of one version: made from weights, and read back with every byte checked."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.format import arrays
from mlpserve_model.format.errors import CorruptVersion
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

# Reads a file of the version by its name; raises CorruptVersion above a number of bytes.
Read = Callable[[str, int], bytes]
# The allowed difference from a golden probability, relative to an answer above 1, which only
# identity outputs give: float32 sums differ between machines.
GOLDEN_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version whose files were verified and whose self-test passed."""

    manifest: Manifest
    weights: Weights

    def predict(self, x: Array) -> NDArray[np.float32]:
        """Return the probabilities (rows, classes) of scaled instances `x` (rows, inputs)."""
        return _probabilities(self.manifest.network, self.weights, x)


def model_files(network: Network, weights: Weights, golden_inputs: Array) -> dict[str, bytes]:
    """Return the contents of model.npz and golden.npz: the weights, and what they must answer.

    Args:
        network: The shape of the network.
        weights: Its weights.
        golden_inputs: Scaled instances for the self-test, (rows, inputs).

    Raises:
        CorruptVersion: No reader would accept the files.

    """
    shapes = _golden_shapes(network, len(golden_inputs))
    if golden_inputs.shape != shapes["inputs"]:
        raise CorruptVersion(f"golden inputs {golden_inputs.shape}, expected {shapes['inputs']}")
    golden_inputs = golden_inputs.astype(np.float32)
    # Computed from what a reader gets: float32, in row-major order.
    stored = arrays.decode_weights(data := arrays.encode_weights(weights), network)
    with np.errstate(all="ignore"):  # weights that overflow are rejected below
        probabilities = _probabilities(network, stored, golden_inputs)
    golden = arrays.encode({"inputs": golden_inputs, "probabilities": probabilities})
    arrays.decode(golden, shapes)
    return {MODEL_FILE: data, GOLDEN_FILE: golden}


def read_model(read: Read, manifest: Manifest) -> StoredModel:
    """Read, verify and self-test a version's model.

    Raises CorruptVersion with what is wrong, or OSError when the store cannot be read.
    """
    network, files = manifest.network, manifest.files
    limit = arrays.max_size(arrays.weight_shapes(network))
    data = read_verified(read, MODEL_FILE, files[MODEL_FILE], limit)
    model = StoredModel(manifest, arrays.decode_weights(data, network))
    shapes = _golden_shapes(network, manifest.golden_rows)
    data = read_verified(read, GOLDEN_FILE, files[GOLDEN_FILE], arrays.max_size(shapes))
    _self_test(model, arrays.decode(data, shapes))
    return model


def read_verified(read: Read, name: str, info: FileInfo, limit: int) -> bytes:
    """Return the bytes of one file, which has the size and digest that the manifest gives.

    Raises CorruptVersion, before reading if there are more than `limit` bytes, or OSError.
    """
    try:
        data = read(name, min(limit, info.size))
    except FileNotFoundError as error:
        raise CorruptVersion(f"{name} is missing") from error
    compare(name, FileInfo(hashlib.sha256(data).hexdigest(), len(data)), info)
    return data


def compare(name: str, found: FileInfo, info: FileInfo) -> None:
    """Raise CorruptVersion if a file is not the one that the manifest describes."""
    if found.size != info.size:
        raise CorruptVersion(f"{name} has {found.size} bytes, expected {info.size}")
    if found.sha256 != info.sha256:
        raise CorruptVersion(f"{name} has the digest {found.sha256}, expected {info.sha256}")


def _probabilities(network: Network, weights: Weights, x: Array) -> NDArray[np.float32]:
    return forward(network, weights, x).astype(np.float32, copy=False)


def _golden_shapes(network: Network, rows: int) -> dict[str, tuple[int, ...]]:
    return {"inputs": (rows, network.inputs), "probabilities": (rows, network.classes)}


def _self_test(model: StoredModel, golden: Mapping[str, NDArray[np.float32]]) -> None:
    with np.errstate(all="ignore"):  # finite weights may still overflow: the difference is then NaN
        expected = golden["probabilities"]
        found = np.abs(model.predict(golden["inputs"]) - expected)
        difference = (found / np.maximum(np.abs(expected), 1)).max()
    if not difference <= GOLDEN_TOLERANCE:  # also when it is NaN
        raise CorruptVersion(
            f"the self-test is off by {difference:.3g}, expected at most {GOLDEN_TOLERANCE:g}"
        )
