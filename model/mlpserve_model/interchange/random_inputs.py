"""Random inputs for comparisons and self-tests, where there is no data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.nn.network import forward, scale_pixels

__all__ = ["MAX_VALUES", "golden_inputs", "random_inputs", "rows_for"]

_GOLDEN_ROWS = 32
_CANDIDATES = 4  # for each golden row
MAX_VALUES = 2**20


def rows_for(found: ImportedNetwork, wanted: int) -> int:
    """Return so many rows, or fewer if a layer is so wide that they would take much memory."""
    return max(1, min(wanted, MAX_VALUES // max(found.network.layer_sizes)))


def random_inputs(
    rng: np.random.Generator, rows: int, found: ImportedNetwork, dtype: Any = np.float32
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return inputs as a foreign model takes them, and as ours takes them: (rows, inputs) each.

    Args:
        rng: The source of randomness.
        rows: The number of inputs.
        found: The network.
        dtype: What the foreign model takes; uint8 are pixels from 0 to 255.

    """
    shape = (rows, found.network.inputs)
    if dtype is np.uint8:
        pixels = rng.integers(0, 256, shape, np.uint8)
        return pixels, scale_pixels(pixels, 255)
    if dtype is np.bool_ or np.issubdtype(dtype, np.integer):
        low = -5 if np.issubdtype(dtype, np.signedinteger) else 0
        whole = rng.integers(low, 2 if dtype is np.bool_ else 6, shape)
        return whole.astype(dtype), whole.astype(np.float32)
    if found.metadata.input_kind == "pixels":
        scaled = rng.random(shape, np.float32)
    else:
        scaled = rng.standard_normal(shape, np.float32)
    return scaled, scaled


def golden_inputs(found: ImportedNetwork) -> NDArray[np.float32]:
    """Return inputs for the self-test: of random ones, those that float32 computes most exactly.

    Servers on other machines compute slightly other sums, which may differ by much where a network
    answers steeply.
    """
    rng = np.random.default_rng(0)
    rows = rows_for(found, _CANDIDATES * _GOLDEN_ROWS)
    _, x = random_inputs(rng, rows, found)
    with np.errstate(all="ignore"):
        exact = forward(found.network, found.weights, x.astype(np.float64))
        error = np.abs(exact - forward(found.network, found.weights, x)).max(axis=1)
    return x[np.argsort(error, kind="stable")[:_GOLDEN_ROWS]]
