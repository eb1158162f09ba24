"""The arrays of requests: every check of shape, size and values, and scaling."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2
from mlpserve_model import Manifest, scale_pixels
from mlpserve_model.store.evidence.receipts import row_bytes
from mlpserve_server.dataplane.query import Float32, Tensor
from mlpserve_server.errors import BatchTooLarge, InvalidInput, NotFinite

__all__ = [
    "ANY_INSTANCE_BYTES",
    "check_batch",
    "check_finite",
    "check_instance",
    "check_rows",
    "dimensions",
    "hashed_rows",
    "row_count",
    "scaled",
    "too_long",
]

_DTYPES: dict[int, np.dtype[Any]] = {
    prediction_pb2.DATA_TYPE_UINT8: np.dtype(np.uint8),
    prediction_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
}
_MAX_DIMENSIONS = 8
_BITS_OF_1 = int(np.float32(1).view(np.uint32))
# Requests of one instance up to this size are parsed, whatever the models in memory take:
# they may select a version that is not in memory.
ANY_INSTANCE_BYTES = 1 << 20


def dimensions(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the dimensions in a message, of many one more than an array may have.

    A query that kept the field itself would keep the message, with the values of the array in it.
    """
    return tuple(shape[: _MAX_DIMENSIONS + 1])


def too_long(size: int, inputs: int, field: str) -> InvalidInput | None:
    """Return the refusal of a request of one instance that is too large for so many inputs.

    float32 takes four bytes for each, so twice that has room for everything else. None if the
    request is not too large, or if there are no inputs to compare with.
    """
    maximum = max(ANY_INSTANCE_BYTES, 8 * inputs)
    if not inputs or size <= maximum:
        return None
    message = f"a request of {size} bytes, expected at most {maximum}: one instance of the model"
    return InvalidInput(field, message)


def check_finite(field: str, *answers: NDArray[Any]) -> None:
    """Raise NotFinite unless all that a network made of some rows is finite: (rows, ...) each."""
    if all(np.isfinite(answer).all() for answer in answers):
        return
    wrong = [~np.isfinite(answer.reshape(len(answer), -1)).all(axis=1) for answer in answers]
    raise NotFinite(f"{field}.data", np.flatnonzero(np.logical_or.reduce(wrong)).tolist())


def check_instance(tensor: Tensor, manifest: Manifest, field: str) -> None:
    """Raise InvalidInput unless the array is one instance; its values are not read."""
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
    _check_size(tensor, field, shape, inputs)


def check_batch(tensor: Tensor, manifest: Manifest, field: str, max_batch: int) -> None:
    """Raise InvalidInput unless the array is a batch of at most `max_batch` instances."""
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
    _check_size(tensor, field, shape, shape[0] * inputs)


def check_rows(tensor: Tensor, manifest: Manifest, field: str, max_batch: int) -> None:
    """Raise InvalidInput unless the array is an instance or a batch."""
    shape, inputs = _shape(tensor, field), manifest.network.inputs
    if shape and math.prod(shape) == inputs:
        _check_size(tensor, field, shape, inputs)
    else:
        check_batch(tensor, manifest, field, max_batch)


def row_count(tensor: Tensor, manifest: Manifest) -> int:
    """Return the number of instances in an array that passed its check."""
    return len(tensor.data) // (manifest.network.inputs * _DTYPES[tensor.dtype].itemsize)


def scaled(
    data: bytes | memoryview, dtype: int, manifest: Manifest, field: str, first_row: int = 0
) -> Float32:
    """Return the values of checked instances as the network takes them: (rows, inputs) float32.

    Pixels are scaled to 0..1; real numbers are left as they are.

    Raises:
        InvalidInput: a value is out of range; the message names its row, from `first_row`.
    """
    values = np.frombuffer(data, _DTYPES[dtype]).reshape(-1, manifest.network.inputs)
    if manifest.signature.input_kind == "real":
        return _real(values, field, first_row)
    if dtype == prediction_pb2.DATA_TYPE_UINT8:
        maximum = manifest.signature.input_maximum
        _check_pixels(values, maximum, field)
        return scale_pixels(values, maximum)
    _check_scaled(values, field, first_row)
    return values.astype(np.float32, copy=False)


def hashed_rows(
    data: bytes | memoryview, dtype: int, manifest: Manifest, x: Float32
) -> list[bytes]:
    """Return what receipts have the hash of, for each of some checked instances.

    Args:
        data: the instances as they were sent.
        dtype: their type.
        manifest: the version that answers.
        x: the same, scaled.
    """
    signature = manifest.signature
    if dtype != prediction_pb2.DATA_TYPE_UINT8 or signature.input_maximum != 255:
        return row_bytes(x, signature.input_kind == "real")
    size, sent = manifest.network.inputs, bytes(data)  # which is what `row_bytes` would give
    return [sent[first : first + size] for first in range(0, len(sent), size)]


def _shape(tensor: Tensor, field: str) -> tuple[int, ...]:
    shape = dimensions(tensor.shape)  # of one that may have millions
    if len(shape) > _MAX_DIMENSIONS or any(d < 0 for d in shape):
        raise InvalidInput(f"{field}.shape", f"shape {_shown(shape)} is not a shape")
    return shape


def _check_size(tensor: Tensor, field: str, shape: Sequence[int], values: int) -> None:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise InvalidInput(
            f"{field}.dtype",
            f"dtype {tensor.dtype}, expected DATA_TYPE_UINT8 (1) or DATA_TYPE_FLOAT32 (2)",
        )
    if len(tensor.data) != values * dtype.itemsize:
        raise InvalidInput(
            f"{field}.data",
            f"{len(tensor.data)} bytes, expected {values * dtype.itemsize}: "
            f"shape {_shown(shape)} of {dtype.name}",
        )


def _check_pixels(values: NDArray[Any], maximum: float, field: str) -> None:
    if maximum < 255 and (top := int(values.max())) > maximum:
        raise InvalidInput(
            f"{field}.data", f"a value of {top}, expected raw values from 0 to {maximum:g}"
        )


def _check_scaled(values: NDArray[Any], field: str, first_row: int) -> None:
    # The bits of the floats from 0 to 1 are in the same order, below all others but -0: a single
    # pass. NaN fails each comparison.
    if values.view("<u4").max() <= _BITS_OF_1 or (values.min() >= 0 and values.max() <= 1):
        return
    raise InvalidInput(
        f"{field}.data",
        f"{_first(values, ~((values >= 0) & (values <= 1)), first_row)}, expected "
        "finite values from 0 to 1: float32 is scaled already, raw values are sent as uint8",
    )


def _real(values: NDArray[Any], field: str, first_row: int) -> Float32:
    if values.dtype == np.uint8:
        raise InvalidInput(
            f"{field}.dtype",
            "dtype DATA_TYPE_UINT8 (1), expected DATA_TYPE_FLOAT32 (2): the model takes real "
            "numbers in the units of its training data: send them as floats, whole numbers too",
        )
    finite = np.isfinite(values)
    if not finite.all():
        raise InvalidInput(
            f"{field}.data", f"{_first(values, ~finite, first_row)}, expected finite values"
        )
    return values.astype(np.float32, copy=False)


def _first(values: NDArray[Any], wrong: NDArray[np.bool_], first_row: int) -> str:
    """Return which is the first wrong value, and where."""
    row, position = (int(i) for i in np.argwhere(wrong)[0])
    return f"the value {values[row, position]} in row {first_row + row} at {position}"


def _shown(shape: Sequence[object]) -> str:
    text = ", ".join(map(str, shape[:_MAX_DIMENSIONS]))
    return f"[{text}{', ...' if len(shape) > _MAX_DIMENSIONS else ''}]"
