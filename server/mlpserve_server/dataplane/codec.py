"""Between bytes of the wire contract and arrays: parse, check, scale, encode. No gRPC in sight."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_model import Manifest, scale_pixels
from mlpserve_server.dataplane.frames import frame_of
from mlpserve_server.errors import BatchTooLarge, InvalidInput, ModelNotFound

__all__ = [
    "Array",
    "Selection",
    "batch_data",
    "check_name",
    "encode_batch",
    "encode_singles",
    "instance_data",
    "known_names",
    "model_ref",
    "numbered",
    "parse",
    "rows_data",
    "scaled",
    "selection",
]

Float32 = NDArray[np.float32]
M = TypeVar("M", bound=Message)

_DTYPES: dict[int, np.dtype[Any]] = {
    prediction_pb2.DATA_TYPE_UINT8: np.dtype(np.uint8),
    prediction_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}
_MAX_DIMENSIONS = 8


class Array(Protocol):
    """What a request holds, in whichever contract it came."""

    @property
    def dtype(self) -> int:
        """A DataType of the contract."""
        ...

    @property
    def shape(self) -> Sequence[int]:
        """The dimensions, unchecked."""
        ...

    @property
    def data(self) -> bytes:
        """The values, row-major and little-endian."""
        ...


class Selection(NamedTuple):
    """Which model a caller asks for; neither set: the served one."""

    version: int | None = None
    alias: str | None = None


def parse(kind: type[M], data: bytes) -> M:
    """The message in these bytes; raises InvalidInput when they are not one."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidInput("", f"the request is not a {name}: {error}") from error


def check_name(name: str, served: str) -> None:
    """Raise ModelNotFound for another model than the one that is served."""
    if name != served:
        raise ModelNotFound(f"there is no model {name[:63]!r}: served is {served}")


def known_names(
    message: prediction_pb2.PredictRequest | prediction_pb2.BatchPredictRequest,
) -> int | None:
    """The hash of the class names that the caller has; None: it wants none."""
    return message.known_class_names if message.HasField("known_class_names") else None


def selection(selector: model_pb2.ModelSelector, served: str) -> Selection:
    """What the selector selects of the model that is served.

    Raises InvalidInput for a number below 1, and ModelNotFound for another model.
    """
    if selector.name:
        check_name(selector.name, served)
    match selector.WhichOneof("selector"):
        case "version":
            return numbered(selector.version, "model.version")
        case "alias":
            return Selection(alias=selector.alias)
        case _:
            return Selection()


def numbered(version: int, field: str) -> Selection:
    """Select this version; raises InvalidInput for a number below 1."""
    if version < 1:
        raise InvalidInput(field, f"version {version}, expected 1 or more")
    return Selection(version=version)


def instance_data(tensor: Array, manifest: Manifest, field: str) -> bytes:
    """The values of one instance, checked but for their range; raises InvalidInput."""
    inputs = manifest.network.inputs
    shape: Sequence[int] = tensor.shape
    if len(shape) != 1 or shape[0] != inputs:  # the usual shape needs no more
        shape = _shape(tensor, field)
        if not shape or math.prod(shape) != inputs:
            raise InvalidInput(
                f"{field}.shape",
                f"shape {_shown(shape)}, expected {_shown(manifest.signature.input_shape)} "
                f"or another with a product of {inputs}",
            )
    return _checked_data(tensor, field, shape, inputs)


def batch_data(tensor: Array, manifest: Manifest, field: str, max_batch: int) -> tuple[int, bytes]:
    """The rows of a batch and their values, checked but for their range; raises InvalidInput."""
    shape, inputs = _shape(tensor, field), manifest.network.inputs
    if len(shape) < 2 or math.prod(shape[1:]) != inputs:
        raise InvalidInput(
            f"{field}.shape",
            f"shape {_shown(shape)}, expected {_shown(('n', *manifest.signature.input_shape))} "
            f"or another whose dimensions after the first have a product of {inputs}",
        )
    if shape[0] == 0:
        raise InvalidInput(f"{field}.shape", "an empty batch, expected at least 1 instance")
    if shape[0] > max_batch:
        raise BatchTooLarge(f"{field}.shape", shape[0], max_batch)
    return shape[0], _checked_data(tensor, field, shape, shape[0] * inputs)


def rows_data(tensor: Array, manifest: Manifest, field: str, max_batch: int) -> tuple[int, bytes]:
    """As `batch_data`, of a batch or of one instance."""
    shape, inputs = _shape(tensor, field), manifest.network.inputs
    if shape and math.prod(shape) == inputs:
        return 1, _checked_data(tensor, field, shape, inputs)
    return batch_data(tensor, manifest, field, max_batch)


def scaled(
    data: bytes | memoryview, dtype: int, manifest: Manifest, field: str, first_row: int = 0
) -> Float32:
    """The values of instances whose size was checked, scaled to 0..1: (rows, inputs) float32.

    Raises InvalidInput for a value out of range, named by its row, counted from `first_row`.
    """
    values = np.frombuffer(data, _DTYPES[dtype]).reshape(-1, manifest.network.inputs)
    if dtype == prediction_pb2.DATA_TYPE_UINT8:
        _check_pixels(values, manifest.signature.input_maximum, field)
        return scale_pixels(values, manifest.signature.input_maximum)
    _check_scaled(values, field, first_row)
    return values.astype(np.float32, copy=False)


def encode_singles(
    probabilities: Float32, manifest: Manifest, known_names: Sequence[int | None]
) -> list[bytes]:
    """A PredictResponse for each row of the probabilities (rows, classes).

    `known_names` has the `known_class_names` of each request.
    """
    frame = frame_of(manifest)
    packed = probabilities.astype("<f4", copy=False).tobytes()
    size = len(packed) // len(probabilities)
    return [
        frame.heads[label]
        + packed[row * size : (row + 1) * size]
        + frame.tail
        + frame.names_for(known_names[row])
        for row, label in enumerate(probabilities.argmax(axis=1).tolist())
    ]


def encode_batch(
    probabilities: Sequence[Float32], manifest: Manifest, known_names: int | None
) -> bytes:
    """A BatchPredictResponse for the probabilities, parts of (rows, classes) each."""
    whole = np.concatenate(probabilities)
    response = prediction_pb2.BatchPredictResponse(
        labels=whole.argmax(axis=1).tolist(),
        probabilities=prediction_pb2.Tensor(
            dtype=prediction_pb2.DATA_TYPE_FLOAT32,
            shape=whole.shape,
            data=whole.astype("<f4", copy=False).tobytes(),
        ),
        model=model_ref(manifest),
    ).SerializeToString()
    # The field has the same number in both responses.
    return response + frame_of(manifest).names_for(known_names)


def model_ref(manifest: Manifest) -> model_pb2.ModelRef:
    """How answers name the version that gave them."""
    return model_pb2.ModelRef(name=manifest.model, version=manifest.version, digest=manifest.digest)


def _shape(tensor: Array, field: str) -> tuple[int, ...]:
    shape = tuple(tensor.shape[: _MAX_DIMENSIONS + 1])  # of one that may have millions
    if len(shape) > _MAX_DIMENSIONS or any(d < 0 for d in shape):
        raise InvalidInput(f"{field}.shape", f"shape {_shown(shape)} is not a shape")
    return shape


def _checked_data(tensor: Array, field: str, shape: Sequence[int], values: int) -> bytes:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidInput(
            f"{field}.dtype",
            f"dtype {tensor.dtype}, expected DATA_TYPE_UINT8 (1) or DATA_TYPE_FLOAT32 (2)",
        )
    data = tensor.data
    if len(data) != values * dtype.itemsize:
        raise InvalidInput(
            f"{field}.data",
            f"{len(data)} bytes, expected {values * dtype.itemsize}: "
            f"shape {_shown(shape)} of {dtype.name}",
        )
    return data


def _check_pixels(values: NDArray[Any], maximum: float, field: str) -> None:
    if maximum < 255 and (top := int(values.max())) > maximum:
        raise InvalidInput(
            f"{field}.data", f"a value of {top}, expected raw values from 0 to {maximum:g}"
        )


def _check_scaled(values: NDArray[Any], field: str, first_row: int) -> None:
    """All in 0..1; NaN fails both comparisons."""
    if values.min() >= 0 and values.max() <= 1:
        return
    wrong = ~((values >= 0) & (values <= 1))
    row, position = (int(i) for i in np.argwhere(wrong)[0])
    raise InvalidInput(
        f"{field}.data",
        f"the value {values[row, position]} in row {first_row + row} at {position}, expected "
        "finite values from 0 to 1: float32 is scaled already, raw values are sent as uint8",
    )


def _shown(shape: Sequence[object]) -> str:
    text = ", ".join(map(str, shape[:_MAX_DIMENSIONS]))
    return f"[{text}{', ...' if len(shape) > _MAX_DIMENSIONS else ''}]"
