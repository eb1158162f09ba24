"""What the calls need from a transport. One blocks, one is awaited; nothing else differs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from mlpserve.v1 import model_pb2, prediction_pb2
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
GET_MODEL: Method[model_pb2.GetModelVersionRequest, model_pb2.GetModelVersionResponse] = Method(
    ModelServiceStub, "GetModelVersion"
)
LIST_MODELS: Method[model_pb2.ListModelVersionsRequest, model_pb2.ListModelVersionsResponse] = (
    Method(ModelServiceStub, "ListModelVersions")
)


def bind(channel: grpc.Channel | grpc.aio.Channel) -> dict[Method[Any, Any], Any]:
    """Make the stubs of a channel of either kind."""
    methods: list[Method[Any, Any]] = [PREDICT, BATCH_PREDICT, GET_MODEL, LIST_MODELS]
    return {method: getattr(method.stub(channel), method.name) for method in methods}


class Call(Protocol[Response_co]):
    """A call under way."""

    async def result(self) -> Response_co:
        """Wait for the answer; raises grpc.RpcError."""
        ...

    def cancel(self) -> object:
        """Give up; a finished call does not mind."""
        ...


class Transport(Protocol):
    """Carries calls. A blocking transport's coroutines return without ever suspending."""

    async def call(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float,
    ) -> Response_co:
        """Call and wait for the answer; raises grpc.RpcError."""
        ...

    def start(
        self,
        method: Method[Request_contra, Response_co],
        request: Request_contra,
        timeout: float,
    ) -> Call[Response_co]:
        """Call and return at once."""
        ...

    async def check(self, target: str, request: bytes, timeout: float) -> bytes:
        """Ask one target's health service over a connection that needs no readiness."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
