"""A real server, the stubs to call it, and the types of the fixtures that start and ask it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from mlpserve.open_inference import inference_pb2_grpc
from mlpserve.v1 import (
    explanation_pb2_grpc,
    feedback_pb2_grpc,
    model_pb2_grpc,
    prediction_pb2_grpc,
)
from mlpserve_model import StoredModel
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.server import Server
from mlpserve_server.transport.services import HOT_METHODS

__all__ = [
    "ANY_TRANSPORT",
    "Page",
    "Process",
    "Refusal",
    "Refuse",
    "Run",
    "Serve",
    "Stubs",
    "each_method",
]

# What is decided before there is a transport needs no look at both.
ANY_TRANSPORT = pytest.mark.parametrize("transport", ["auto"])
READINESS = "mlpserve.v1.PredictionService"


def each_method(*methods: str) -> pytest.MarkDecorator:
    """Run a test with each method, on both transports where that is one of the direct transport.

    All others are left to the same server by both.
    """
    hot = [method for method in methods if method in HOT_METHODS]
    alike = [("auto", method) for method in methods if method not in hot]
    both = [*product(("direct", "standard"), hot), *alike]
    return pytest.mark.parametrize(("transport", "method"), both)


PROGRAM = str(Path(sys.executable).with_name("mlpserve-server"))


class Stubs:
    """Everything that can be called at one address."""

    def __init__(
        self, address: str, metrics_address: str = "", server: Server | None = None
    ) -> None:
        self.address = address
        self.metrics_address = metrics_address
        self.server = server  # if it runs in this process
        self.channel = grpc.insecure_channel(address)
        self.prediction = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        self.explanation = explanation_pb2_grpc.ExplanationServiceStub(self.channel)
        self.feedback = feedback_pb2_grpc.FeedbackServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.inference = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    @property
    def manager(self) -> ModelManager:
        """What follows the store, in a server of this process with one model."""
        assert self.server
        return self.server._models.get()

    @property
    def served(self) -> StoredModel:
        """The version that answers, in a server of this process with one model."""
        assert self.manager.current
        return self.manager.current

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


class Process:
    """A server in a process of its own, logging JSON.

    With `before`, its process runs this code first: what makes it a broken twin. `twin` is such
    code for every server of this process.
    """

    twin = ""

    def __init__(self, *arguments: str, before: str = "", **environment: str) -> None:
        before = before or self.twin
        code = f"{before}\nimport sys\nfrom mlpserve_server.cli import main\nsys.exit(main())"
        program = [sys.executable, "-c", code] if before else [PROGRAM]
        self.process = subprocess.Popen(
            [*program, *arguments, "--log-format", "json"],
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


class Serve(Protocol):
    """Starts a server on a free port; it is stopped after the test."""

    def __call__(self, **changes: Any) -> Stubs:
        """Return what calls it; `changes` are to its settings."""
        ...


class Run(Protocol):
    """Starts `mlpserve-server` on a free port; it is killed after the test."""

    def __call__(self, *arguments: str, **environment: str) -> Process:
        """Return the process."""
        ...


class Refuse(Protocol):
    """Makes a call that must fail."""

    def __call__(self, call: Callable[..., Any], request: Any) -> Refusal:
        """Return what the caller was told."""
        ...
