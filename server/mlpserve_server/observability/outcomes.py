"""The rows and the version of a response, for the access log and traces."""

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import prediction_pb2

__all__ = ["rows_and_version"]


def rows_and_version(method: str, response: bytes) -> tuple[int, int]:
    """Return the number of rows in a response and the version, or 0 and 0 if there are none."""
    match method.rpartition("/")[2]:
        case "Predict" if response:
            single = prediction_pb2.PredictResponse.FromString(response)
            return 1, single.model.version
        case "BatchPredict" if response:
            batch = prediction_pb2.BatchPredictResponse.FromString(response)
            return len(batch.labels), batch.model.version
        case "ModelInfer" if response:
            inferred = inference_pb2.ModelInferResponse.FromString(response)
            return int(inferred.outputs[0].shape[0]), int(inferred.model_version)
        case _:
            return 0, 0
