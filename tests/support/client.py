"""Types of the client's fixtures, the asyncio client used as a blocking one, a failing server."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import grpc
import numpy as np
import numpy.typing as npt
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import AsyncClient, Client, Tls
from mlpserve_client._calls import Calls
from mlpserve_server.server import Server

__all__ = [
    "Before", "Connect", "Driven", "Expected", "Pixels", "Probabilities", "Scripted",
    "StartScripted", "StartServer", "calls_of",
]  # fmt: skip

Pixels: TypeAlias = npt.NDArray[np.uint8]  # [n, 28, 28]
Probabilities: TypeAlias = npt.NDArray[np.float32]  # [n, classes]
Before: TypeAlias = Callable[[int, grpc.ServicerContext], object]  # a prediction's number from 0


class Connect(Protocol):
    """Makes a client, closed after the test. The asyncio one is used like a blocking one."""

    def __call__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        model: str | None = None,
    ) -> Client: ...


class StartServer(Protocol):
    """Starts a server of ours, stopped after the test."""

    def __call__(self, listen: str = "127.0.0.1:0", **settings: object) -> Server: ...


class StartScripted(Protocol):
    """Starts a server that fails as told, stopped after the test."""

    def __call__(
        self, before: Before = ..., credentials: grpc.ServerCredentials | None = None
    ) -> "Scripted": ...


class Expected(Protocol):
    """Computes the probabilities of a version without server and client."""

    def __call__(self, pixels: Pixels, version: int = 1) -> Probabilities: ...


class Driven:
    """An AsyncClient in a loop of its own that runs whenever a call is made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*args, **kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await getattr(self._client, name)(*args, **kwargs)

        return lambda *args, **kwargs: self._runner.run(call(*args, **kwargs))

    def predict_stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        answers = self._client.predict_stream(*args, **kwargs)

        async def following() -> Any:
            return await anext(answers)

        with suppress(StopAsyncIteration):
            while True:
                yield self._runner.run(following())

    def __enter__(self) -> "Driven":
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def calls_of(client: Client) -> Calls:
    """What makes the calls of a client of either kind."""
    return (client._client if isinstance(client, Driven) else client)._calls


class Scripted(grpc.GenericRpcHandler):
    """A gRPC server that fails as told, where ours cannot be made to.

    Args:
        before: is called before each prediction, and may abort its context.
        credentials: of the server; None for plain text.

    """

    def __init__(
        self,
        before: Before = lambda number, context: None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.predictions = 0
        self.metadata: list[dict[str, str | bytes]] = []
        self._before = before
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        servicer = health.HealthServicer()
        servicer.set("mlpserve.v1.PredictionService", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        # Not by the name localhost: gRPC listens on ::1 as well then, and another server may
        # have the same port on 127.0.0.1, which is where clients would call.
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        method = handler_call_details.method.rpartition("/")[2]
        if method not in ("Predict", "GetModelVersion"):
            return None

        def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.metadata.append(dict(context.invocation_metadata()))
            if method == "Predict":
                with self._lock:
                    number, self.predictions = self.predictions, self.predictions + 1
                self._before(number, context)
            return _answer(method)

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def close(self) -> None:
        """Stop the server and end its calls."""
        self._server.stop(0).wait(5)  # a call that ends just now can keep stop(None) forever


def _answer(method: str) -> bytes:
    """Return the answer of a server with one version of two classes."""
    ref = model_pb2.ModelRef(name="mnist", version=1)
    if method == "GetModelVersion":
        version = model_pb2.ModelVersion(ref=ref, class_names=["no", "yes"], input_shape=[2])
        return model_pb2.GetModelVersionResponse(model_version=version).SerializeToString()
    response = prediction_pb2.PredictResponse(label=1, probabilities=[0.25, 0.75], model=ref)
    return response.SerializeToString()
