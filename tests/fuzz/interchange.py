"""Networks that other programs wrote."""

import numpy as np

from mlpserve_model import UnsupportedModel
from mlpserve_model.format import arrays
from mlpserve_model.interchange.importing import ImportOptions, import_network
from tests.fuzz.target import scratch, target

LEFT_OPEN = ImportOptions(activations=("relu", "softmax"))


def imported(name: str, data: bytes) -> None:
    """What is not refused can be stored and read again."""
    found = import_network(scratch(name, data), LEFT_OPEN)
    again = arrays.decode_weights(arrays.encode_weights(found.weights), found.network)
    assert all(np.array_equal(a.w, b.w) for a, b in zip(again, found.weights, strict=True))


@target(UnsupportedModel)
def onnx(data: bytes) -> None:
    imported("own.onnx", data)


@target(UnsupportedModel)
def safetensors(data: bytes) -> None:
    imported("own.safetensors", data)


@target(UnsupportedModel)
def npz(data: bytes) -> None:
    imported("own.npz", data)


@target(UnsupportedModel)
def skops(data: bytes) -> None:
    imported("own.skops", data)
