"""Warns of integers that were scaled to 0 and 1 already."""

import warnings
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.v1 import model_pb2
from mlpserve_client._results import ModelVersion

Describe: TypeAlias = Callable[
    [model_pb2.ModelSelector | None, float | None], Awaitable[ModelVersion]
]  # a version and a timeout in seconds


class ScaleCheck:
    """Gets the model's raw maximum once, at the first suspicious input."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._maximum: float | None = None

    async def check(
        self,
        array: npt.NDArray[Any],
        selector: model_pb2.ModelSelector | None,
        timeout: float | None,
    ) -> None:
        """Warn if all values are integers of 0 and 1, and the model's raw values reach higher."""
        if not _looks_scaled(array):
            return
        if self._maximum is None:
            # Older servers do not say it: nothing is concluded there.
            self._maximum = (await self._describe(selector, timeout)).input_maximum or 1.0
        if self._maximum > 1:
            warnings.warn(
                "all values are 0 or 1, but integers are raw values of 0 to "
                f"{self._maximum:g}: pass scaled values as floats or booleans",
                stacklevel=2,
            )


def _looks_scaled(array: npt.NDArray[Any]) -> bool:
    """Return True for integers of 0 and 1 alone, as from `x.astype(int)` of scaled values.

    uint8 is the dtype of raw values, so it is never suspicious.
    """
    whole = array.dtype.kind in "ui" and array.dtype != np.uint8 and array.size > 1
    return bool(whole and array.max() == 1 and array.min() >= 0)
