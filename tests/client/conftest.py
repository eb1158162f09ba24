"""Real servers, and clients of both kinds that tests use alike."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve_client import Client, _calls, _readiness
from mlpserve_client._awaited import AwaitedTransport
from mlpserve_client._blocking import BlockingTransport
from mlpserve_client.testing import ModelServer, serve
from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from mlpserve_server.transport.services import _OPTIONS
from tests.support.client import (
    Before,
    Connect,
    Driven,
    Expected,
    Pixels,
    Probabilities,
    Scripted,
    StartScripted,
    StartServer,
)

# `make test-oldest` runs the client with a grpcio that the server is not made for: protected
# against resets, its core refuses streams of a busy client too.
if tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 82):
    protection = _OPTIONS.index(("grpc.http.overload_protection", 1))
    _OPTIONS[protection] = ("grpc.http.overload_protection", 0)


@pytest.fixture(params=[Client, Driven], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make a client of either kind; it is closed after the test."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(request.param(*args, **kwargs))


@pytest.fixture(scope="session")
def server() -> Iterator[ModelServer]:
    """A server with one version, which no test changes."""
    with serve() as running:
        yield running


@pytest.fixture
def client(connect: Connect, server: ModelServer) -> Client:
    return connect(server.target)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
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


@pytest.fixture
def scripted() -> Iterator[StartScripted]:
    """Start a server that fails as told and otherwise answers; it is stopped after the test."""
    with ExitStack() as stack:

        def scripted(
            before: Before = lambda number, context: None,
            credentials: grpc.ServerCredentials | None = None,
        ) -> Scripted:
            server = Scripted(before, credentials)
            stack.callback(server.close)
            return server

        yield scripted


@pytest.fixture
def pixels() -> Pixels:
    """Some images, `[20, 28, 28]` uint8."""
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="session")
def expected(server: ModelServer) -> Expected:
    """Compute what a version answers, without server and client."""
    store = Store(server.store, "mnist")

    def expected(pixels: Pixels, version: int = 1) -> Probabilities:
        scaled = pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
        return store.load(version).predict(scaled)

    return expected


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept, which it does not."""
    seconds: list[float] = []

    async def sleep(_: object, duration: float) -> None:
        seconds.append(duration)

    for transport in (BlockingTransport, AwaitedTransport):
        monkeypatch.setattr(transport, "sleep", sleep)
    return seconds


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client wait for as long as a live server on a busy machine takes to say how it is."""
    for place in (_calls, _readiness):
        monkeypatch.setattr(place, "DIAGNOSIS_SECONDS", 30)
    monkeypatch.setattr(_readiness, "_MAX_PROBE_SECONDS", 30)
