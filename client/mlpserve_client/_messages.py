"""The messages of requests: selectors and arrays; `_answers` has those that come back."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client._errors import InvalidInputError, SettingsError
from mlpserve_client._inputs import as_wire_values
from mlpserve_client._settings import check_model


def selector(
    version: int | None, alias: str | None, model: str | None = None
) -> model_pb2.ModelSelector | None:
    """Return a selector of a model, and of a version by number or alias; None if none is given.

    Raises:
        InvalidInputError: a version and an alias are given, or one of the three is invalid.

    """
    name = "" if model is None else _model(model)
    if version is not None and alias is not None:
        raise InvalidInputError("select a version or an alias, not both")
    if version is not None:
        return model_pb2.ModelSelector(version=_version(version), name=name)
    if alias is not None:
        return model_pb2.ModelSelector(alias=_alias(alias), name=name)
    return model_pb2.ModelSelector(name=name) if name else None


def encode(array: npt.NDArray[Any]) -> prediction_pb2.Tensor:
    """Return numbers of any shape as a tensor.

    Raises:
        InvalidInputError: the values do not fit the scale of their dtype.

    """
    tensor = prediction_pb2.Tensor()
    encode_into(tensor, array)
    return tensor


def encode_into(tensor: prediction_pb2.Tensor, array: npt.NDArray[Any]) -> None:
    """Put numbers into an empty tensor of a message: assigned as a whole, it would be copied.

    Raises:
        InvalidInputError: as `encode` does.

    """
    values = as_wire_values(array)
    raw = values.dtype == np.uint8
    tensor.dtype = prediction_pb2.DATA_TYPE_UINT8 if raw else prediction_pb2.DATA_TYPE_FLOAT32
    tensor.shape.extend(values.shape)
    tensor.data = values.tobytes()


def integer(value: object, name: str) -> int:
    """Return an integer of any type; raise InvalidInputError for anything else."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # raises TypeError
    except TypeError as error:
        raise InvalidInputError(f"invalid {name} {value!r}: expected an integer") from error


def _version(version: object) -> int:
    number = integer(version, "version")
    if not 1 <= number < 2**63:
        raise InvalidInputError(f"invalid version {number}: expected 1 to 2**63 - 1")
    return number


def _model(name: object) -> str:
    try:
        return check_model(name)
    except SettingsError as error:
        raise InvalidInputError(str(error)) from error


def _alias(alias: object) -> str:
    # isprintable: protobuf cannot send a lone surrogate, and aliases have no control characters.
    if not isinstance(alias, str) or not alias.isprintable():
        raise InvalidInputError(f"invalid alias {alias!r}: expected printable text")
    return alias
