"""Nothing but a call that is being computed delays a stop."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from h2.exceptions import ProtocolError

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.patching import patch_method
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection, frame, rapid_reset
from tests.support.server import Run, Stubs
from tests.support.waiting import eventually

FOR_EVER = 3600.0
# At once, of any method: the others wait.
MORE_THAN_ARE_READ = 40
REQUEST = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
)
METHODS = [
    "/mlpserve.v1.PredictionService/Predict",
    "/mlpserve.v1.PredictionService/BatchPredict",
    "/mlpserve.v1.ExplanationService/Explain",
    "/mlpserve.v1.ModelService/ListModelVersions",
    "/inference.GRPCInferenceService/ModelInfer",
]


@pytest.fixture
def server(store: Store, publish: Publish, transport: str) -> Iterator[Server]:
    """A server that waits for an hour for what it has to wait for."""
    publish()
    settings = Settings(
        store=store.folder.parent,
        listen=("127.0.0.1:0",),
        poll_seconds=0.02,
        drain_seconds=0,
        grace_seconds=FOR_EVER,
        transport=transport,
    )
    server = Server(settings)
    server.start()
    yield server
    server.stop()


def ends(server: Server, connections: Sequence[RawConnection] = ()) -> bool:
    """Stop the server; returns whether that has an end while these connections answer pings."""
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    until = time.monotonic() + 30
    while stopping.is_alive() and time.monotonic() < until:
        for connection in connections:
            with suppress(OSError, ProtocolError):  # it was closed
                connection.receive(0)
        stopping.join(0.05)
    return not stopping.is_alive()


@pytest.fixture
def stubs(server: Server) -> Iterator[Stubs]:
    stubs = Stubs(server.address, server=server)
    eventually(stubs.serving)
    yield stubs
    stubs.channel.close()


def test_a_watch_is_told_and_ended(server: Server, stubs: Stubs) -> None:
    name = "mlpserve.v1.PredictionService"
    watch = stubs.health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
    first = next(watch)
    assert ends(server)
    told = [first.status, *(answer.status for answer in watch)]
    assert told == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    ]


def test_a_connection_that_does_not_answer_is_closed(server: Server, stubs: Stubs) -> None:
    with RawConnection(server.address) as connection:
        connection.receive(1)
        assert ends(server)


@pytest.mark.parametrize("method", METHODS)
def test_a_half_sent_request_is_cut_off(method: str, server: Server, stubs: Stubs) -> None:
    with RawConnection(server.address) as connection:
        connection.send(connection.open(method), frame(b"abc", length=10))
        assert stubs.serving()
        assert ends(server)


@pytest.mark.parametrize("method", METHODS)
def test_half_sent_requests_that_wait_to_be_read_are_cut_off(
    method: str, server: Server, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("SLOW_SECONDS", "MAX_WAIT_SECONDS"):
        monkeypatch.setattr(f"mlpserve_server.transport.request_reader.{seconds}", FOR_EVER)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(RawConnection(server.address)) for _ in range(MORE_THAN_ARE_READ)
        ]
        for connection in connections:
            connection.send(connection.open(method), frame(b"abc", length=10))
        assert stubs.serving()
        assert ends(server, connections)


@pytest.mark.parametrize("method", METHODS)
def test_an_unread_answer_is_cut_off(method: str, server: Server, stubs: Stubs) -> None:
    with RawConnection(server.address, window=0) as connection:
        connection.receive(1)
        connection.send(connection.open(method), frame(REQUEST.SerializeToString()), end=True)
        assert stubs.serving()
        assert ends(server)


def test_a_call_that_is_computed_is_answered(
    server: Server, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, opened = threading.Event(), threading.Event()
    predict = stubs.served.predict

    def waiting(x: Any) -> Any:
        entered.set()
        assert opened.wait(20)
        return predict(x)

    patch_method(monkeypatch, stubs.served, "predict", waiting)
    call = stubs.prediction.Predict.future(REQUEST, timeout=60)
    assert entered.wait(20)
    with ExitStack() as stack:
        stack.callback(opened.set)
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        stopping.join(2)  # longer than anything but this call may delay it
        assert stopping.is_alive()
    assert call.result(timeout=20).model.version == 1
    stopping.join(30)
    assert not stopping.is_alive()


def test_a_stop_amid_calls_that_are_reset_is_a_clean_end(publish: Publish, run: Run) -> None:
    publish()
    process = run("--drain-seconds", "0")
    address = process.event("listening")["address"]
    with RawConnection(address) as connection:
        connection.receive(1)
        connection.socket.sendall(rapid_reset(METHODS[0], 2000))
        assert process.end() == 0
