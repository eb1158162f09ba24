"""Converts arrays and results to and from messages."""

import math
import operator
from datetime import UTC
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client._errors import InvalidInputError, ServerError
from mlpserve_client._inputs import as_wire_values
from mlpserve_client._results import InputValues, ModelRef, ModelVersion, Prediction

_MAX_PROBABILITY = 1.001  # with what rounding adds
_MAX_INPUTS = 2**26  # values of one instance; far above what a server takes


def selector(version: int | None, alias: str | None) -> model_pb2.ModelSelector | None:
    """Return a selector of a version by number or alias; None if neither is given.

    Raises:
        InvalidInputError: both are given, or one is invalid.

    """
    if version is not None and alias is not None:
        raise InvalidInputError("select a version or an alias, not both")
    if version is not None:
        return model_pb2.ModelSelector(version=_version(version))
    return None if alias is None else model_pb2.ModelSelector(alias=_alias(alias))


def encode(array: npt.NDArray[Any]) -> prediction_pb2.Tensor:
    """Return numbers of any shape as a tensor.

    Raises:
        InvalidInputError: the values do not fit the scale of their dtype.

    """
    values = as_wire_values(array)
    raw = values.dtype == np.uint8
    return prediction_pb2.Tensor(
        dtype=prediction_pb2.DATA_TYPE_UINT8 if raw else prediction_pb2.DATA_TYPE_FLOAT32,
        shape=values.shape,
        data=values.tobytes(),
    )


def decode_rows(tensor: prediction_pb2.Tensor, rows: int, classes: int) -> npt.NDArray[np.float32]:
    """Return the probabilities of a batch, `[rows, classes]`, in the message's memory.

    Raises:
        ServerError: the tensor has another dtype, shape or size, or is not of probabilities.

    """
    whole = tensor.shape == [rows, classes] and len(tensor.data) == 4 * rows * classes
    if not whole or tensor.dtype != prediction_pb2.DATA_TYPE_FLOAT32:
        raise ServerError(
            f"expected float32 probabilities of shape {[rows, classes]}, the server sent "
            f"shape {list(tensor.shape)} in {len(tensor.data)} bytes"
        )
    return _checked(np.frombuffer(tensor.data, dtype="<f4").reshape(rows, classes))


def ref(message: model_pb2.ModelRef) -> ModelRef:
    """Return a reference to a version."""
    return ModelRef(message.name, message.version, message.digest)


def prediction(
    response: prediction_pb2.PredictResponse, model: ModelRef, class_names: tuple[str, ...]
) -> Prediction:
    """Return the answer for one instance.

    Raises:
        ServerError: the label, probabilities and class names do not fit together.

    """
    probabilities = np.array(response.probabilities, dtype=np.float32)
    if not 0 <= response.label < len(probabilities) == len(class_names):
        raise ServerError(
            f"the server answered label {response.label} and {len(probabilities)} "
            f"probabilities for a model of {len(class_names)} classes"
        )
    _checked(probabilities).flags.writeable = False
    label = response.label
    return Prediction(
        label, class_names[label], float(probabilities[label]), probabilities, model, class_names
    )


def _checked(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probabilities; raise ServerError for values that are none, such as NaN."""
    # NaN makes both comparisons false.
    if probabilities.size and not (
        probabilities.min() >= 0 and probabilities.max() <= _MAX_PROBABILITY
    ):
        raise ServerError("the server sent probabilities that are not from 0 to 1")
    return probabilities


def model_version(message: model_pb2.ModelVersion) -> ModelVersion:
    """Return the description of a version.

    Raises:
        ServerError: its time or its input shape is impossible.

    """
    try:
        created = message.create_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ServerError(f"the server sent an impossible creation time: {error}") from error
    shape = tuple(message.input_shape)
    if not (all(side > 0 for side in shape) and math.prod(shape) <= _MAX_INPUTS):
        raise ServerError(f"the server described inputs of the impossible shape {shape[:8]}")
    return ModelVersion(
        ref=ref(message.ref),
        state=_state(message.state),
        reason=message.state_reason,
        aliases=tuple(message.aliases),
        input_shape=shape,
        class_names=tuple(message.class_names),
        created=created,
        metrics=dict(message.metrics),
        input_maximum=message.input_maximum or None,
        input_values=_input_values(message),
    )


def _input_values(message: model_pb2.ModelVersion) -> InputValues | None:
    if not message.HasField("input_values"):
        return None
    values = message.input_values
    kind = model_pb2.InputValues.Kind.DESCRIPTOR.values_by_number.get(values.kind)
    name = kind.name.removeprefix("KIND_").lower() if kind and kind.number else "unknown"
    return InputValues(name, values.low, values.high)


def _state(number: int) -> str:
    value = model_pb2.ModelVersion.State.DESCRIPTOR.values_by_number.get(number)
    # A newer server may know states that this client does not.
    return value.name.removeprefix("STATE_") if value else "UNKNOWN"


def _version(version: object) -> int:
    try:
        number = operator.index(version)  # type: ignore[arg-type]  # raises TypeError
    except TypeError as error:
        raise InvalidInputError(f"invalid version {version!r}: expected an integer") from error
    if not 1 <= number < 2**63:
        raise InvalidInputError(f"invalid version {number}: expected 1 to 2**63 - 1")
    return number


def _alias(alias: object) -> str:
    # isprintable: protobuf cannot send a lone surrogate, and aliases have no control characters.
    if not isinstance(alias, str) or not alias.isprintable():
        raise InvalidInputError(f"invalid alias {alias!r}: expected printable text")
    return alias
