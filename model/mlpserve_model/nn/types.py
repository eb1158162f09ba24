"""Types that are used in the whole package."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array"]

# A float32 array in training and serving; float64 where gradients are checked.
Array: TypeAlias = NDArray[np.floating[Any]]
