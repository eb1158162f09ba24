"""BentoML over HTTP with JSON bodies: NumPy arrays in and out, as its documentation shows."""
# mypy: disable-error-code="import-not-found,untyped-decorator,type-arg"

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType

from benchmarks.compare.peers.mlp import Mlp


@bentoml.service(workers=1)
class Classifier:
    def __init__(self) -> None:
        self.mlp = Mlp()

    @bentoml.api
    def classify(self, rows: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self.mlp(rows)

    @bentoml.api
    def classify_pixels(self, pixels: Annotated[np.ndarray, DType("uint8")]) -> np.ndarray:
        return self.mlp(pixels)
