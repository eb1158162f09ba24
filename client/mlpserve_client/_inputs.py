"""Turns inputs into arrays of the two dtypes that are sent.

uint8 holds raw values, 0 to the model's maximum; float32 holds values scaled to 0..1, or real
numbers for a model that takes them, which the server knows. The dtype fixes the scale, so that
nothing is normalised twice, or not at all.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from mlpserve_client._errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image

    Instance: TypeAlias = npt.ArrayLike | Image | str | Path
    Instances: TypeAlias = npt.ArrayLike | Sequence[Instance]

_FLOAT32 = np.dtype("<f4")
_DIVIDE = (
    "divide by the maximum of the training data (client.model().input_maximum, 255 of most "
    "8-bit images), or pass raw values as uint8"
)


def is_image(x: object) -> "TypeGuard[Image | str | Path]":
    """Return True if `x` is a Pillow image or the path of one."""
    if isinstance(x, str | Path):
        return True
    # A caller with a Pillow image has imported Pillow; the others do not need it.
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(x, pillow.Image)


def has_images(xs: object) -> "TypeGuard[Sequence[Instance]]":
    """Return True if `xs` is a list or tuple with at least one image in it."""
    return isinstance(xs, list | tuple) and any(is_image(x) for x in xs)


def as_instances(xs: Any) -> npt.NDArray[Any]:
    """Return many instances as one array, `[n, ...]`, with their values unchanged.

    Raises:
        InvalidInputError: they are not numbers, not of one length, or a single instance.

    """
    if is_image(xs):
        raise InvalidInputError(
            "predict_batch takes several instances: pass [image], or call predict"
        )
    array = as_array(xs)
    if array.ndim < 2 and array.size:
        raise InvalidInputError(
            f"predict_batch takes n instances, [n, ...], but got shape {array.shape}: "
            "for one instance call predict, or pass x[np.newaxis]"
        )
    return array


def as_array(x: Any) -> npt.NDArray[Any]:
    """Return arrays, lists and scalars as an array of numbers, without copying arrays.

    Raises:
        InvalidInputError: they are not numbers, masked, or not of one length.

    """
    array: npt.NDArray[Any] = x if type(x) is np.ndarray else _made_array(x)
    if array.dtype.kind not in "buif":
        raise InvalidInputError(
            f"expected numbers (bool, integers or floats), got {type(x).__name__} "
            f"with dtype {array.dtype}"
        )
    return array


def _made_array(x: Any) -> npt.NDArray[Any]:
    if isinstance(x, bytes | bytearray):
        raise InvalidInputError("expected numbers, got bytes: pass an image file by its path")
    try:
        array = np.asarray(x)
    except Exception as error:  # whatever an object's __array__ raises
        raise InvalidInputError(f"cannot make a rectangular array: {error}") from error
    if any(map(np.ma.is_masked, _masked_arrays(x))):
        raise InvalidInputError("masked values cannot be sent: fill them first, as x.filled(0)")
    return array


def _masked_arrays(x: object) -> list[Any]:
    """Return the masked arrays in `x`; NumPy would drop their masks silently."""
    parts = x if isinstance(x, list | tuple) else [x]
    return [part for part in parts if isinstance(part, np.ma.MaskedArray)]


def as_wire_values(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cast numbers to uint8 (raw) or little-endian float32 (scaled or real).

    Raises:
        InvalidInputError: a value is out of the range of its dtype, or not finite.

    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype("<f4")
    if array.dtype.kind in "ui":
        return _raw(array)
    return _finite(array)


def why_not_scaled(values: npt.NDArray[np.float32]) -> str | None:
    """Return why finite values are not scaled, None if they are: what a model of pixels refuses."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return None
    hint = _DIVIDE if low >= 0 else "undo any centring such as (x - mean) / deviation"
    return (
        f"floats are scaled values of 0 to 1, but these reach from {low:.9g} to {high:.9g}: {hint}"
    )


def _raw(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.size and not (array.min() >= 0 and array.max() <= 255):
        raise InvalidInputError(
            f"integers are raw values of 0 to 255, but these reach from {array.min()} to "
            f"{array.max()}: scale them to floats of 0 to 1, or pass them as floats to a model of "
            "real numbers"
        )
    return array.astype(np.uint8)


def _finite(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = array
    if array.dtype != _FLOAT32:
        # What overflows or is no number is refused below, without NumPy's warning of it.
        with np.errstate(over="ignore", invalid="ignore"):
            values = array.astype(_FLOAT32)
    finite = np.isfinite(values)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InvalidInputError(f"the value at {where} is {values[where]}: expected finite values")
    return values
