"""Refuses, or warns of, integers that were scaled to 0 and 1 already."""

import warnings
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2
from mlpserve_client._errors import InvalidInputError, MlpserveError
from mlpserve_client._results import ModelVersion

Describe: TypeAlias = Callable[
    [model_pb2.ModelSelector | None, float | None], Awaitable[ModelVersion]
]  # a version and a timeout in seconds

_SCALED = ("binary", "scaled")
_ADVICE = "pass scaled values as floats or booleans"


class ScaleCheck:
    """Compares integers of 0 and 1 alone with what the version was trained on.

    Of every other input only the first row is examined. The version is described once, and again
    before an input is refused.
    """

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._described: dict[str, ModelVersion] = {}  # by model

    async def check(
        self,
        array: npt.NDArray[Any],
        selector: model_pb2.ModelSelector | None,
        timeout: float | None,
    ) -> None:
        """Check the values of an input before it is sent.

        Raises:
            InvalidInputError: all values are integers of 0 and 1, which stand for hardly more
                than 0, and the version was trained on scaled values.

        """
        if not looks_scaled(array):
            return
        name = selector.name if selector else ""
        version = self._described.get(name)
        if version is None or _is_scaled(version):
            try:
                version = self._described[name] = await self._describe(selector, timeout)
            except MlpserveError:  # the call that follows fails for the same reason, or need not
                return
        maximum = version.input_maximum or 1.0  # older servers do not say it
        if maximum <= 1:
            return
        text = f"all values are 0 or 1, but integers are raw values of 0 to {maximum:g}"
        if _is_scaled(version):
            raise InvalidInputError(f"{text}, and the model was trained on scaled ones: {_ADVICE}")
        if array.dtype != np.uint8 and not _reaches_one(version):
            warnings.warn(f"{text}: {_ADVICE}", stacklevel=2)


def looks_scaled(array: npt.NDArray[Any]) -> bool:
    """Return True for integers of 0 and 1 alone, as from `x.astype(int)` of scaled values."""
    if array.dtype.kind not in "ui" or array.size < 2:
        return False
    first = array[0] if array.ndim > 1 else array
    # Nearly always the end, and in a tenth of the time of a maximum.
    if array.dtype == np.uint8 and first.tobytes().strip(b"\0\1"):
        return False
    return bool(first.max() <= 1 and array.max() == 1 and array.min() >= 0)


def _is_scaled(version: ModelVersion) -> bool:
    return version.input_values is not None and version.input_values.kind in _SCALED


def _reaches_one(version: ModelVersion) -> bool:
    """Return True if 1 was the largest raw value of the training data."""
    return version.input_values is not None and version.input_values.high <= 1
