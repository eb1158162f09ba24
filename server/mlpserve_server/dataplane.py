"""The data plane: bytes in, bytes out or a ServingError. It knows no transport."""

from collections.abc import Callable

import numpy as np

from mlpserve.v1 import prediction_pb2
from mlpserve_model import StoredModel
from mlpserve_server import codec
from mlpserve_server.errors import Abandoned
from mlpserve_server.manager import ModelManager

__all__ = ["DataPlane"]

# Rows of one matrix product: small enough for single calls to get their turn in between and
# for an abandoned batch to end soon, large enough that cutting it up costs nothing.
CHUNK_ROWS = 512


def _always() -> bool:
    return True


class DataPlane:
    """Answers prediction requests with whatever the manager serves.

    `active` is asked between chunks whether someone still waits for the answer.
    """

    def __init__(self, manager: ModelManager, max_batch: int) -> None:
        self.manager = manager
        self.max_batch = max_batch

    def predict(self, request: bytes, active: Callable[[], bool] = _always) -> bytes:
        """Answer a PredictRequest with a PredictResponse, both as bytes."""
        message = prediction_pb2.PredictRequest()
        codec.parse(message, request)
        model = self.manager.get(*codec.selection(message.model))
        x = codec.decode_instances(message.instance, model.manifest, "instance", None)
        return codec.encode_single(_forward(model, x, active), model.manifest)

    def batch_predict(self, request: bytes, active: Callable[[], bool] = _always) -> bytes:
        """Answer a BatchPredictRequest with a BatchPredictResponse, both as bytes."""
        message = prediction_pb2.BatchPredictRequest()
        codec.parse(message, request)
        model = self.manager.get(*codec.selection(message.model))
        x = codec.decode_instances(message.instances, model.manifest, "instances", self.max_batch)
        return codec.encode_batch(_forward(model, x, active), model.manifest)


def _forward(model: StoredModel, x: codec.Float32, active: Callable[[], bool]) -> codec.Float32:
    """Probabilities (rows, classes) of `x` (rows, inputs), a chunk at a time."""
    chunks = []
    for start in range(0, len(x), CHUNK_ROWS):
        if not active():
            raise Abandoned("the caller no longer waits")
        chunks.append(model.predict(x[start : start + CHUNK_ROWS]))
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
