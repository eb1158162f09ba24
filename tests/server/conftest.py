"""A real server on a free port over a real folder, and the stubs to call it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from mlpserve.open_inference import inference_pb2_grpc
from mlpserve.v1 import model_pb2_grpc, prediction_pb2_grpc
from mlpserve_model import (
    CHAMPION,
    DatasetInfo,
    Draft,
    Network,
    Signature,
    Store,
    Verdict,
    initialise,
)
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings

PROMOTED = Verdict("PROMOTED")
READINESS = "mlpserve.v1.PredictionService"
NETWORK = Network((12, 8, 3))
DRAFT = Draft(
    model="mnist",
    network=NETWORK,
    signature=Signature((3, 4), 16, ("circle", "square", "star")),
    dataset=DatasetInfo("made up", "sha256:0", "none"),
    recipe={},
    seed=0,
    libraries={},
    metrics={"accuracy": 0.9},
)


class Stubs:
    """Everything that can be called at one address."""

    def __init__(self, address: str, metrics_address: str = "") -> None:
        self.address = address
        self.metrics_address = metrics_address
        self.channel = grpc.insecure_channel(address)
        self.prediction = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.inference = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def scrape(self) -> "Page":
        """The metrics of this server."""
        return Page(f"http://{self.metrics_address}/metrics")

    def serving(self, service: str = READINESS) -> bool:
        """Whether the health service says so."""
        request = health_pb2.HealthCheckRequest(service=service)
        status = self.health.Check(request, timeout=5).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)


class Refusal:
    """A failed call, its details unpacked by the official libraries."""

    def __init__(self, error: grpc.RpcError) -> None:
        status: Any = rpc_status.from_call(error)
        self.code = error.code()
        self.message: str = status.message
        self.info = error_details_pb2.ErrorInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.retry = error_details_pb2.RetryInfo()
        for detail in status.details:
            for target in (self.info, self.bad_request, self.retry):
                if detail.Is(target.DESCRIPTOR):
                    detail.Unpack(target)

    @property
    def fields(self) -> list[str]:
        """The paths of the fields that were wrong."""
        return [violation.field for violation in self.bad_request.field_violations]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", "mnist")


@pytest.fixture
def publish(store: Store) -> Callable[..., int]:
    """Publish a version with the seed's weights; make it champion unless told otherwise."""

    def publish(
        seed: int = 0, promote: bool = True, verdict: Verdict = PROMOTED, **changes: Any
    ) -> int:
        draft = replace(DRAFT, **changes)
        rng = np.random.default_rng(seed)
        weights = initialise(draft.network, rng)
        golden = rng.random((4, draft.network.inputs), dtype=np.float32)
        version = store.publish(draft, verdict, weights, golden).version
        if promote:
            expected = store.aliases().get(CHAMPION)
            store.move_alias(CHAMPION, version, expected=expected, event="promote", reason="test")
        return version

    return publish


@pytest.fixture(params=["direct", "standard"])
def transport(request: pytest.FixtureRequest) -> str:
    """Every test of a server is run on both transports."""
    return str(request.param)


@pytest.fixture
def serve(store: Store, transport: str) -> Iterator[Callable[..., Stubs]]:
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
        running.append((server, Stubs(server.address, server.metrics_address)))
        return running[-1][1]

    yield serve
    for server, stubs in running:
        stubs.channel.close()
        server.stop()


@pytest.fixture
def refusal() -> Callable[..., Refusal]:
    """Call and give the refusal; fails when the call does not."""

    def refusal(call: Callable[..., Any], request: Any) -> Refusal:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=10)
        return Refusal(caught.value)

    return refusal


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds; fails after ten seconds."""

    def eventually(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.01)

    return eventually


PROGRAM = str(Path(sys.executable).with_name("mlpserve-server"))


class Process:
    """A server in a process of its own, logging JSON."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, *arguments, "--log-format", "json"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.log: list[str] = []

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event in the log."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"the server ended without {name!r}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def run(store: Any, transport: str) -> Iterator[Callable[..., Process]]:
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


class Page:
    """All series of one scrape, as Prometheus reads it."""

    def __init__(self, address: str) -> None:
        with urlopen(address, timeout=10) as response:
            self.text: str = response.read().decode()
        self.series: Mapping[tuple[str, frozenset[tuple[str, str]]], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels; `class_` is class."""
        wanted = {(key.rstrip("_"), value) for key, value in labels.items()}
        return sum(v for (n, have), v in self.series.items() if n == name and wanted <= have)

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of the series of this name."""
        return [dict(labels) for n, labels in self.series if n == name]


@pytest.fixture
def scrape() -> type[Page]:
    """Get the metrics from an address."""
    return Page
