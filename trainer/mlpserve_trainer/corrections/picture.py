"""Instances as text, for a terminal."""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["drawing"]

SHADES = " .:-=+*#%@"
MIN_SIDE, MAX_SIDE = 4, 64


def drawing(instance: npt.NDArray[np.float32]) -> str:
    """Return an image as text, dark where it is 1; nothing for what is not an image.

    A flat row of pixels is an image if their number is a square.
    """
    image = _image(instance)
    if image is None or image.min() < 0 or image.max() > 1:
        return ""
    levels = np.clip(image * len(SHADES), 0, len(SHADES) - 1).astype(int)
    return "\n".join("".join(2 * SHADES[level] for level in line).rstrip() for line in levels)


def _image(instance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    image = instance.squeeze()
    if image.ndim == 1 and (side := math.isqrt(image.size)) ** 2 == image.size:
        image = image.reshape(side, side)
    if image.ndim != 2 or not MIN_SIDE <= max(image.shape) <= MAX_SIDE:
        return None
    return image
