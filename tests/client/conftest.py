"""Real servers, and clients of both kinds that tests use alike."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import AsyncClient, Client
from mlpserve_client.testing import ModelServer, serve
from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings


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


@pytest.fixture(params=[Client, Driven], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Make a client of either kind; it is closed after the test."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(request.param(*args, **kwargs))


@pytest.fixture(scope="session")
def server() -> Iterator[ModelServer]:
    """A server with one version, which nobody changes."""
    with serve() as running:
        yield running


@pytest.fixture
def client(connect: Callable[..., Any], server: ModelServer) -> Any:
    return connect(server.target)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers over one store, which is empty at first; they are stopped after the test."""
    with ExitStack() as stack:

        def start(listen: str = "127.0.0.1:0", **more: Any) -> Server:
            defaults: dict[str, Any] = {
                "store": tmp_path / "store",
                "poll_seconds": 0.02,
                "drain_seconds": 0,
            }
            settings = Settings(listen=(listen,), **defaults | more)
            return stack.enter_context(Server(settings))

        yield start


class Scripted(grpc.GenericRpcHandler):
    """A gRPC server that fails as told, for what ours cannot be brought to do.

    `before` sees every prediction's number, from 0, and its context, which it may abort.
    """

    def __init__(
        self,
        before: Callable[[int, grpc.ServicerContext], object] = lambda number, context: None,
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

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        if method not in ("Predict", "GetModelVersion"):
            return None

        def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.metadata.append(dict(context.invocation_metadata()))
            if method == "Predict":
                with self._lock:
                    number, self.predictions = self.predictions, self.predictions + 1
                self._before(number, context)
            return answer_well(method)

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def close(self) -> None:
        self._server.stop(0).wait(5)  # a call that ends just now can keep stop(None) forever


def answer_well(method: str) -> bytes:
    """Answer as a server with one version of two classes."""
    ref = model_pb2.ModelRef(name="mnist", version=1)
    if method == "GetModelVersion":
        version = model_pb2.ModelVersion(ref=ref, class_names=["no", "yes"], input_shape=[2])
        return model_pb2.GetModelVersionResponse(model_version=version).SerializeToString()
    response = prediction_pb2.PredictResponse(label=1, probabilities=[0.25, 0.75], model=ref)
    return response.SerializeToString()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Start a server that answers as told, otherwise well; it is stopped after the test."""
    with ExitStack() as stack:

        def scripted(*args: Any, **kwargs: Any) -> Scripted:
            server = Scripted(*args, **kwargs)
            stack.callback(server.close)
            return server

        yield scripted


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    """Some images, `[20, 28, 28]` uint8."""
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="session")
def expected(server: ModelServer) -> Callable[..., npt.NDArray[np.float32]]:
    """Compute what a version answers, without server and client."""
    store = Store(server.store, "mnist")

    def expected(pixels: npt.NDArray[np.uint8], version: int = 1) -> npt.NDArray[np.float32]:
        scaled = pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
        return store.load(version).predict(scaled)

    return expected
