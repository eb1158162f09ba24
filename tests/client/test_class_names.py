"""Names come with the answer; what an old server, another replica or nobody knows stands in."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mlpserve.v1 import model_pb2 as model
from mlpserve.v1 import model_pb2_grpc, prediction_pb2_grpc
from mlpserve.v1 import prediction_pb2 as prediction
from mlpserve_client import Client, ModelNotFoundError, ServerError, _batches
from mlpserve_client._class_names import names_hash
from mlpserve_client.testing import ModelServer
from tests.support.client import Connect, Pixels, StartServer

ROWS = np.zeros((3, 2))
DIGITS = tuple("0123456789")


class Replica(prediction_pb2_grpc.PredictionServiceServicer, model_pb2_grpc.ModelServiceServicer):
    """A server with one version, which sends names (old: does not) and counts its calls."""

    def __init__(self, version: int, names: tuple[str, ...], old: bool = False) -> None:
        self.names, self.old = names, old
        self.ref = model.ModelRef(name="mnist", version=version, digest=f"sha256:{version}")
        self.described = 0
        self.known: list[int | None] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        servicer = health.HealthServicer()
        servicer.set("mlpserve.v1.PredictionService", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Predict(self, request: Any, context: Any) -> prediction.PredictResponse:  # noqa: N802
        self._check(request, context)
        return prediction.PredictResponse(
            label=1,
            probabilities=np.eye(len(self.names))[1],
            model=self.ref,
            class_names=self._sent(request),
        )

    def BatchPredict(self, request: Any, context: Any) -> prediction.BatchPredictResponse:  # noqa: N802
        self._check(request, context)
        rows, classes = request.instances.shape[0], len(self.names)
        probabilities = np.zeros((rows, classes), dtype="<f4")
        tensor = prediction.Tensor(
            dtype=prediction.DATA_TYPE_FLOAT32, shape=[rows, classes], data=probabilities.tobytes()
        )
        return prediction.BatchPredictResponse(
            labels=[1] * rows,
            probabilities=tensor,
            model=self.ref,
            class_names=self._sent(request),
        )

    def GetModelVersion(self, request: Any, context: Any) -> model.GetModelVersionResponse:  # noqa: N802
        self.described += 1
        self._find(request, context)
        version = model.ModelVersion(ref=self.ref, class_names=self.names, input_shape=[2])
        return model.GetModelVersionResponse(model_version=version)

    def close(self) -> None:
        self._server.stop(0).wait(5)

    def _check(self, request: Any, context: Any) -> None:
        told = request.HasField("known_class_names")
        self.known.append(request.known_class_names if told else None)
        self._find(request, context)

    def _find(self, request: Any, context: Any) -> None:
        if request.model.version not in (0, self.ref.version):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no version {request.model.version}")

    def _sent(self, request: Any) -> tuple[str, ...]:
        told = request.HasField("known_class_names")
        wanted = told and request.known_class_names != names_hash(self.names)
        return self.names if wanted and not self.old else ()


Start = Callable[..., Replica]


@pytest.fixture
def replica() -> Iterator[Start]:
    """Start replicas; they are stopped after the test."""
    with ExitStack() as stack:

        def start(*args: Any, kind: type[Replica] = Replica, **kwargs: Any) -> Replica:
            server = kind(*args, **kwargs)
            stack.callback(server.close)
            return server

        yield start


def names_by(call: str, client: Client) -> list[str]:
    """Classify three rows in one of the three ways; return the names in the answers."""
    if call == "predict":
        return [client.predict(row).name for row in ROWS]
    if call == "predict_batch":
        return list(client.predict_batch(ROWS).names)
    return [answer.name for answer in client.predict_stream(iter(ROWS))]


every_call = pytest.mark.parametrize("call", ["predict", "predict_batch", "predict_stream"])


def test_the_hash_is_the_contracts() -> None:
    # SHA-256 of "no\nyes" begins with 8d aa 3c 97 9a da 0d 18.
    assert names_hash(("no", "yes")) == 0x180D_DA9A_973C_AA8D


def test_names_with_a_newline_are_not_said_to_be_known() -> None:
    assert names_hash(("no\nyes",)) == names_hash(("a", "no\n")) == 0


@every_call
def test_names_come_with_the_answer_and_nothing_is_asked_for(
    connect: Connect, replica: Start, call: str
) -> None:
    server = replica(1, ("no", "yes"))
    client = connect(server.target)

    for _ in range(3):
        assert names_by(call, client) == ["yes"] * 3
    assert server.described == 0
    assert server.known[0] == 0
    assert server.known[-1] == names_hash(("no", "yes"))


@every_call
def test_an_old_server_is_asked_once_a_version(connect: Connect, replica: Start, call: str) -> None:
    server = replica(1, ("no", "yes"), old=True)
    client = connect(server.target)

    for _ in range(3):
        assert names_by(call, client) == ["yes"] * 3
    assert server.described == 1
    assert set(server.known) == {0}  # it was told of no names that it may not have


@every_call
def test_the_labels_number_stands_in_where_an_old_server_does_not_describe_its_version(
    connect: Connect, replica: Start, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def gone(self: Replica, request: Any, context: Any) -> None:
        context.abort(grpc.StatusCode.NOT_FOUND, "its folder is gone")

    monkeypatch.setattr(Replica, "GetModelVersion", gone)
    server = replica(1, ("no", "yes"), old=True)

    assert names_by(call, connect(server.target)) == ["1"] * 3


@every_call
def test_two_versions_in_turn_have_their_own_names_whatever_servers_send(
    connect: Connect, replica: Start, call: str
) -> None:
    for old in (False, True):
        servers = [replica(1, ("no", "yes"), old), replica(2, ("nein", "ja"), old)]
        client = connect([server.target for server in servers])
        while not all(server.known for server in servers):
            names_by(call, client)
        for _ in range(10):
            assert set(names_by(call, client)) <= {"yes", "ja"}


def test_a_used_number_of_other_weights_names_nothing(
    connect: Connect, replica: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(self: Replica, request: Any, context: Any) -> model.GetModelVersionResponse:
        ref = model.ModelRef(name="mnist", version=1, digest="sha256:other")
        version = model.ModelVersion(ref=ref, class_names=["wrong", "names"])
        return model.GetModelVersionResponse(model_version=version)

    monkeypatch.setattr(Replica, "GetModelVersion", other)
    server = replica(1, ("no", "yes"), old=True)

    assert connect(server.target).predict(ROWS[0]).name == "1"


class Replaced(Replica):
    """Has other weights by the same number at each call."""

    def BatchPredict(self, request: Any, context: Any) -> prediction.BatchPredictResponse:  # noqa: N802
        response = super().BatchPredict(request, context)
        response.model.digest = f"sha256:{len(self.known)}"
        return response


def test_a_batch_by_one_number_but_two_weights_is_refused(
    connect: Connect, replica: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "_REQUEST_BYTES", 1)  # a row each
    server = replica(1, ("no", "yes"), kind=Replaced)

    with pytest.raises(ServerError, match="rows of one batch"):
        connect(server.target).predict_batch(ROWS)


def remove(version: Path) -> None:
    """Remove a version."""
    shutil.rmtree(version)


def damage(version: Path) -> None:
    """Damage a version."""
    (version / "model.npz").write_bytes(b"damaged")


@every_call
@pytest.mark.parametrize("lose", [remove, damage])
def test_an_answer_is_kept_though_another_replica_cannot_load_its_version(
    connect: Connect,
    start: StartServer,
    tmp_path: Path,
    pixels: Pixels,
    call: str,
    lose: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_batches, "_REQUEST_BYTES", 3 * 784)  # a batch takes several requests
    store = tmp_path / "store"
    model_server = ModelServer("", store, (28, 28), DIGITS)
    model_server.publish()
    behind = start(poll_seconds=3600).address
    with Client(behind) as client:
        client.wait_until_ready(30)
    for _ in range(2):
        model_server.publish()
    for version in ("1", "2"):
        lose(store / "mnist" / version)
    ahead = start(standby=0).address
    with Client(ahead) as client:
        client.wait_until_ready(30)

    for _ in range(20):
        client = connect([behind, ahead])
        if call == "predict":
            names = [client.predict(row).name for row in pixels[:2]]
        elif call == "predict_batch":
            names = client.predict_batch(pixels).names
        else:
            names = [answer.name for answer in client.predict_stream(iter(pixels))]
        assert set(names) <= set(DIGITS)


def test_a_version_that_never_answered_is_not_looked_for_again(
    connect: Connect, replica: Start
) -> None:
    server = replica(1, ("no", "yes"))

    with pytest.raises(ModelNotFoundError):
        connect(server.target).predict(ROWS[0], version=9)
    assert len(server.known) == 1
