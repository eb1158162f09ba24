"""mlpserve's own messages, for the peers that can serve them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb

__all__ = ["MODEL", "rows", "to_batch", "to_single"]

# As long as a real one, so that answers have the size of mlpserve's.
MODEL = model_pb2.ModelRef(name="mnist", version=1, digest="sha256:" + "0" * 64)
DTYPES: dict[int, type[np.generic]] = {
    pb.DATA_TYPE_UINT8: np.uint8,
    pb.DATA_TYPE_FLOAT32: np.float32,
}


def rows(tensor: pb.Tensor) -> NDArray[Any]:
    """The instances as (rows, 784)."""
    return np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(-1, 784)


def to_single(probabilities: NDArray[np.float32]) -> pb.PredictResponse:
    """The answer to Predict for probabilities (1, 10)."""
    row = probabilities[0]
    return pb.PredictResponse(label=int(row.argmax()), probabilities=row.tolist(), model=MODEL)


def to_batch(probabilities: NDArray[np.float32]) -> pb.BatchPredictResponse:
    """The answer to BatchPredict for probabilities (rows, 10)."""
    tensor = pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT32, shape=probabilities.shape, data=probabilities.tobytes()
    )
    labels = probabilities.argmax(axis=1).tolist()
    return pb.BatchPredictResponse(labels=labels, probabilities=tensor, model=MODEL)
