"""The interface of a transport. One blocks, one is awaited; the rest of the client is shared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2
from mlpserve.v1.explanation_pb2_grpc import ExplanationServiceStub
from mlpserve.v1.feedback_pb2_grpc import FeedbackServiceStub
from mlpserve.v1.model_pb2_grpc import ModelServiceStub
from mlpserve.v1.prediction_pb2_grpc import PredictionServiceStub

Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


@dataclass(frozen=True, eq=False)
class Method(Generic[Request_contra, Response_co]):
    """A method of a generated stub, with its types."""

    stub: Callable[[Any], Any]
    name: str


PREDICT: Method[prediction_pb2.PredictRequest, prediction_pb2.PredictResponse] = Method(
    PredictionServiceStub, "Predict"
)
BATCH_PREDICT: Method[prediction_pb2.BatchPredictRequest, prediction_pb2.BatchPredictResponse] = (
    Method(PredictionServiceStub, "BatchPredict")
)
EXPLAIN: Method[explanation_pb2.ExplainRequest, explanation_pb2.ExplainResponse] = Method(
    ExplanationServiceStub, "Explain"
)
REPORT: Method[feedback_pb2.ReportRequest, feedback_pb2.ReportResponse] = Method(
    FeedbackServiceStub, "Report"
)
GET_MODEL: Method[model_pb2.GetModelVersionRequest, model_pb2.GetModelVersionResponse] = Method(
    ModelServiceStub, "GetModelVersion"
)
LIST_MODELS: Method[model_pb2.ListModelsRequest, model_pb2.ListModelsResponse] = Method(
    ModelServiceStub, "ListModels"
)
LIST_VERSIONS: Method[model_pb2.ListModelVersionsRequest, model_pb2.ListModelVersionsResponse] = (
    Method(ModelServiceStub, "ListModelVersions")
)


def bind(channel: grpc.Channel | grpc.aio.Channel) -> dict[Method[Any, Any], Any]:
    """Make the stubs of a channel of either kind."""
    methods: list[Method[Any, Any]] = [
        PREDICT,
        BATCH_PREDICT,
        EXPLAIN,
        REPORT,
        GET_MODEL,
        LIST_MODELS,
        LIST_VERSIONS,
    ]
    return {method: getattr(method.stub(channel), method.name) for method in methods}


class Call(Protocol[Response_co]):
    """A call in flight."""

    async def result(self) -> Response_co:
        """Wait for the answer; raise grpc.RpcError if there is none."""
        ...

    def cancel(self) -> object:
        """Cancel the call; do nothing if it has ended."""
        ...


class Transport(Protocol):
    """Carries calls. The coroutines of a blocking transport never suspend."""

    async def call(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float,
    ) -> Response_co:
        """Call and wait for the answer; raise grpc.RpcError if there is none."""
        ...

    def start(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float,
    ) -> Call[Response_co]:
        """Start a call and return at once."""
        ...

    async def check(self, target: str, request: bytes, timeout: float) -> bytes:
        """Call the health service of one target, ready or not, over a new connection."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait some seconds."""
        ...
