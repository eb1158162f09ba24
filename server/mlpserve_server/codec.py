"""Between bytes of the wire contract and arrays: decode, check, encode. No gRPC in sight."""

import math
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Manifest, scale_pixels
from mlpserve_server.errors import BatchTooLarge, InvalidInput

__all__ = [
    "Selection",
    "decode_instances",
    "encode_batch",
    "encode_single",
    "model_ref",
    "parse",
    "selection",
]

Float32 = NDArray[np.float32]

_DTYPES: dict[int, tuple[str, int]] = {
    prediction_pb2.DATA_TYPE_UINT8: ("uint8", 1),
    prediction_pb2.DATA_TYPE_FLOAT32: ("float32", 4),
}
_MAX_DIMENSIONS = 8


class Selection(NamedTuple):
    """Which model a caller asks for; neither set: the served one."""

    version: int | None = None
    alias: str | None = None


def parse(message: Message, data: bytes) -> None:
    """Fill the message from bytes; raises InvalidInput when they are not one."""
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.full_name
        raise InvalidInput("", f"the request is not a {name}: {error}") from error


def selection(selector: model_pb2.ModelSelector) -> Selection:
    """What the selector selects; raises InvalidInput for a number below 1."""
    match selector.WhichOneof("selector"):
        case "version":
            if selector.version < 1:
                raise InvalidInput(
                    "model.version", f"version {selector.version}, expected 1 or more"
                )
            return Selection(version=selector.version)
        case "alias":
            return Selection(alias=selector.alias)
        case _:
            return Selection()


def decode_instances(
    tensor: prediction_pb2.Tensor, manifest: Manifest, field: str, max_batch: int | None
) -> Float32:
    """The instances of a tensor, scaled to 0..1: (rows, inputs) float32.

    `max_batch` None stands for a single instance. Raises InvalidInput with the path below
    `field` and what was expected.
    """
    rows = _rows(tensor, manifest, field, max_batch)
    values = _values(tensor, field).reshape(rows, manifest.network.inputs)
    if values.dtype == np.uint8:
        _check_pixels(values, manifest.input_maximum, field)
        return scale_pixels(values, manifest.input_maximum)
    _check_scaled(values, field)
    return values.astype(np.float32, copy=False)


def encode_single(probabilities: Float32, manifest: Manifest) -> bytes:
    """A PredictResponse for the probabilities (1, classes)."""
    row = probabilities[0]
    return prediction_pb2.PredictResponse(
        label=int(row.argmax()), probabilities=row.tolist(), model=model_ref(manifest)
    ).SerializeToString()


def encode_batch(probabilities: Float32, manifest: Manifest) -> bytes:
    """A BatchPredictResponse for the probabilities (rows, classes)."""
    return prediction_pb2.BatchPredictResponse(
        labels=probabilities.argmax(axis=1).tolist(),
        probabilities=prediction_pb2.Tensor(
            dtype=prediction_pb2.DATA_TYPE_FLOAT32,
            shape=probabilities.shape,
            data=probabilities.astype("<f4", copy=False).tobytes(),
        ),
        model=model_ref(manifest),
    ).SerializeToString()


def model_ref(manifest: Manifest) -> model_pb2.ModelRef:
    """How answers name the version that gave them."""
    return model_pb2.ModelRef(name=manifest.model, version=manifest.version, digest=manifest.digest)


def _rows(
    tensor: prediction_pb2.Tensor, manifest: Manifest, field: str, max_batch: int | None
) -> int:
    """How many instances the shape holds, once it fits the model."""
    shape, inputs = tuple(tensor.shape), manifest.network.inputs
    if len(shape) > _MAX_DIMENSIONS or any(d < 0 for d in shape):
        raise InvalidInput(f"{field}.shape", f"shape {_shown(shape)} is not a shape")
    if max_batch is None:
        if not shape or math.prod(shape) != inputs:
            raise InvalidInput(
                f"{field}.shape",
                f"shape {_shown(shape)}, expected {_shown(manifest.input_shape)} "
                f"or another with a product of {inputs}",
            )
        return 1
    if len(shape) < 2 or math.prod(shape[1:]) != inputs:
        raise InvalidInput(
            f"{field}.shape",
            f"shape {_shown(shape)}, expected {_shown(('n', *manifest.input_shape))} "
            f"or another whose dimensions after the first have a product of {inputs}",
        )
    if shape[0] == 0:
        raise InvalidInput(f"{field}.shape", "an empty batch, expected at least 1 instance")
    if shape[0] > max_batch:
        raise BatchTooLarge(f"{field}.shape", shape[0], max_batch)
    return shape[0]


def _values(tensor: prediction_pb2.Tensor, field: str) -> NDArray[Any]:
    if tensor.dtype not in _DTYPES:
        raise InvalidInput(
            f"{field}.dtype",
            f"dtype {tensor.dtype}, expected DATA_TYPE_UINT8 (1) or DATA_TYPE_FLOAT32 (2)",
        )
    name, size = _DTYPES[tensor.dtype]
    expected = math.prod(tensor.shape) * size
    if len(tensor.data) != expected:
        raise InvalidInput(
            f"{field}.data",
            f"{len(tensor.data)} bytes, expected {expected}: "
            f"shape {_shown(tuple(tensor.shape))} of {name}",
        )
    return np.frombuffer(tensor.data, np.dtype(name).newbyteorder("<"))


def _check_pixels(values: NDArray[Any], maximum: float, field: str) -> None:
    if maximum < 255 and (top := int(values.max())) > maximum:
        raise InvalidInput(
            f"{field}.data", f"a value of {top}, expected raw values from 0 to {maximum:g}"
        )


def _check_scaled(values: NDArray[Any], field: str) -> None:
    """All in 0..1; NaN fails both comparisons."""
    if values.min() >= 0 and values.max() <= 1:
        return
    wrong = ~((values >= 0) & (values <= 1))
    row, position = (int(i) for i in np.argwhere(wrong)[0])
    raise InvalidInput(
        f"{field}.data",
        f"the value {values[row, position]} in row {row} at {position}, expected finite values "
        "from 0 to 1: float32 is scaled already, raw values are sent as uint8",
    )


def _shown(shape: tuple[object, ...]) -> str:
    text = ", ".join(map(str, shape[:_MAX_DIMENSIONS]))
    return f"[{text}{', ...' if len(shape) > _MAX_DIMENSIONS else ''}]"
