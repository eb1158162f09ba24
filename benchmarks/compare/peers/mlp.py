"""The network that every Python peer serves: 784-128-10, ReLU and softmax, in plain NumPy."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mlp", "port"]

Float32 = NDArray[np.float32]


def port() -> int:
    """The port to listen on."""
    return int(os.environ["BENCH_PORT"])


class Mlp:
    """The network with the benchmark's weights."""

    def __init__(self) -> None:
        with np.load(os.environ["BENCH_WEIGHTS"]) as weights:
            self.w1, self.b1 = weights["w1"], weights["b1"]
            self.w2, self.b2 = weights["w2"], weights["b2"]

    def __call__(self, x: NDArray[Any]) -> Float32:
        """Probabilities (rows, 10) of `x` (rows, 784): float32 in 0..1, or uint8 pixels."""
        if x.dtype == np.uint8:
            x = np.multiply(x, np.float32(1 / 255), dtype=np.float32)
        z = np.maximum(x @ self.w1 + self.b1, 0) @ self.w2 + self.b2
        e = np.exp(z - z.max(axis=1, keepdims=True))
        probabilities: Float32 = e / e.sum(axis=1, keepdims=True)
        return probabilities
