"""The messages of requests: selectors and arrays; `_answers` has those that come back."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client._errors import InvalidInputError
from mlpserve_client._inputs import as_wire_values


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


def _alias(alias: object) -> str:
    # isprintable: protobuf cannot send a lone surrogate, and aliases have no control characters.
    if not isinstance(alias, str) or not alias.isprintable():
        raise InvalidInputError(f"invalid alias {alias!r}: expected printable text")
    return alias
