"""Real servers, and clients of both kinds that tests use alike."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_client import AsyncClient, Client
from mlpserve_client.testing import ModelServer, serve
from mlpserve_model import Store
from mlpserve_server.app import Server
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
            settings = Settings(
                store=tmp_path / "store",
                listen=(listen,),
                poll_seconds=0.02,
                **{"drain_seconds": 0, **more},
            )
            return stack.enter_context(Server(settings))

        yield start


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
