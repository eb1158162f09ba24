"""A real server on a free port over a real folder, and the stubs to call it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.publishing import Publish, publish_to
from tests.support.server import Page, Process, Refusal, Refuse, Run, Serve, Stubs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", "mnist")


@pytest.fixture
def publish(store: Store) -> Publish:
    """Publish a version with the seed's weights; make it champion unless told otherwise."""
    return partial(publish_to, store)


@pytest.fixture(params=["direct", "standard"])
def transport(request: pytest.FixtureRequest) -> str:
    """Every test of a server is run on both transports."""
    return str(request.param)


@pytest.fixture
def serve(store: Store, transport: str) -> Iterator[Serve]:
    """Start a server on a free port and give its stubs; it is stopped after the test."""
    running: list[tuple[Server, Stubs]] = []

    def serve(**changes: Any) -> Stubs:
        settings = Settings(
            store=store.folder.parent,
            listen=("127.0.0.1:0",),
            poll_seconds=0.02,
            drain_seconds=0,
            grace_seconds=5,
            transport=transport,
        )
        server = Server(replace(settings, **changes))
        server.start()
        running.append((server, Stubs(server.address, server.metrics_address, server)))
        return running[-1][1]

    yield serve
    for server, stubs in running:
        stubs.channel.close()
        server.stop()


@pytest.fixture
def refusal() -> Refuse:
    """Call and give the refusal; fails when the call does not."""

    def refusal(call: Callable[..., Any], request: Any) -> Refusal:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=10)
        return Refusal(caught.value)

    return refusal


@pytest.fixture
def run(store: Store, transport: str) -> Iterator[Run]:
    """Start `mlpserve-server` on a free port."""
    running = []

    def run(*arguments: str, **environment: str) -> Process:
        folder = str(store.folder.parent)
        base = ["--store", folder, "--listen", "127.0.0.1:0", "--poll-seconds", "0.05"]
        base += ["--transport", transport, "--workers", "1"]
        running.append(Process(*base, *arguments, **environment))
        return running[-1]

    yield run
    for process in running:
        process.process.kill()
        process.process.communicate()


@pytest.fixture
def scrape() -> type[Page]:
    """Get the metrics from an address."""
    return Page
