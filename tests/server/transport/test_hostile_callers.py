"""Callers that send half a request, watch and leave, or ask for too much harm nobody else."""

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.transport.grpc_core import ServerCall
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection, frame
from tests.support.server import Refuse, Serve, Stubs, each_method
from tests.support.waiting import eventually

PIXELS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(range(12)))
REQUEST = pb.PredictRequest(instance=PIXELS)
BATCH = pb.BatchPredictRequest(
    instances=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[4096, 12], data=bytes(4096 * 12))
)


MIB = 2**20


class HalfOpen:
    """Calls whose headers are sent and whose requests never come."""

    def __init__(self, channel: grpc.Channel, method: str, count: int) -> None:
        self._go = threading.Event()
        start: Any = channel.stream_unary(method)
        self._calls = [start.future(self._nothing(), timeout=60) for _ in range(count)]

    def _nothing(self) -> Iterator[bytes]:
        self._go.wait(60)
        yield from ()

    def end(self) -> None:
        for call in self._calls:
            call.cancel()
        self._go.set()


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    """A server that serves version 1."""
    publish()
    stubs = serve()
    eventually(stubs.serving)
    return stubs


def test_watches_that_are_cancelled_at_once_do_not_stop_the_server(stubs: Stubs) -> None:
    request = health_pb2.HealthCheckRequest(service="mlpserve.v1.PredictionService")
    for _ in range(50):
        watches = [stubs.health.Watch(request, timeout=10) for _ in range(20)]
        for watch in watches:
            watch.cancel()
    assert stubs.serving()
    assert stubs.serving("")


def test_a_watch_of_an_unknown_service_says_so_and_a_check_is_not_found(stubs: Stubs) -> None:
    request = health_pb2.HealthCheckRequest(service="nobody")
    watch = stubs.health.Watch(request, timeout=10)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stubs.health.Check(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_half_open_batches_do_not_stop_others(stubs: Stubs) -> None:
    half_open = HalfOpen(stubs.channel, "/mlpserve.v1.PredictionService/BatchPredict", 20)
    time.sleep(0.2)
    assert len(stubs.prediction.BatchPredict(BATCH, timeout=20).labels) == 4096
    assert stubs.prediction.Predict(REQUEST, timeout=20).model.version == 1
    half_open.end()


@pytest.mark.parametrize("memory", ["for many requests", "for one request at a time"])
def test_half_sent_batches_of_one_connection_let_those_of_others_go_first(
    memory: str, publish: Publish, serve: Serve, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    roomy = memory == "for many requests"
    # A connection never has all reads of the direct transport, however long they take.
    # More than a whole request takes to arrive on a busy machine: it would be taken for a slow one.
    seconds = 60 if roomy and transport == "direct" else 1.0
    for module in ("request_reader", "request_reads"):
        monkeypatch.setattr(f"mlpserve_server.transport.{module}.SLOW_SECONDS", seconds)
        # What is held to is the order: all of the others before them would take twenty seconds.
        monkeypatch.setattr(f"mlpserve_server.transport.{module}.MAX_WAIT_SECONDS", 15)
    stubs = serve(max_bytes=(4096 if roomy else 64) * MIB)
    eventually(stubs.serving)
    with RawConnection(stubs.address) as hostile:
        for _ in range(99):  # as many as a connection may have, but for the one that follows
            call = hostile.open("/mlpserve.v1.PredictionService/BatchPredict")
            hostile.send(call, frame(b"half", length=100))
        _wait_for_arrival(hostile)
        answers = [stubs.prediction.BatchPredict.future(BATCH, timeout=20) for _ in range(8)]
        assert [len(answer.result().labels) for answer in answers] == [4096] * 8


# More than any method has threads.
@each_method(
    "/mlpserve.v1.PredictionService/Predict",
    "/mlpserve.v1.ModelService/GetModelVersion",
    "/inference.GRPCInferenceService/ServerReady",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
def test_half_open_calls_of_a_method_do_not_stop_it(stubs: Stubs, method: str) -> None:
    with RawConnection(stubs.address) as hostile:
        for _ in range(90):
            hostile.open(method)
        _wait_for_arrival(hostile)
        _answers(stubs, method)


def test_half_open_calls_are_not_those_that_wait(publish: Publish, serve: Serve) -> None:
    """Where few calls may wait, as for a slow model, calls without a request refuse no others."""
    publish()
    stubs = serve(max_waiting=4)
    eventually(stubs.serving)
    with RawConnection(stubs.address) as hostile:
        for _ in range(20):
            hostile.open("/mlpserve.v1.PredictionService/Predict")
        _wait_for_arrival(hostile)

        def is_answered() -> bool:
            try:
                return bool(stubs.prediction.Predict(REQUEST, timeout=10).model.version == 1)
            except grpc.RpcError:
                return False

        eventually(is_answered)


def _wait_for_arrival(connection: RawConnection) -> None:
    """Wait until the server has taken on the calls of a connection: it does so in their order."""
    assert connection.status(connection.open("/nobody/Nothing", end=True)) == 12


def _answers(stubs: Stubs, method: str) -> None:
    """Call the method, or raise RpcError."""
    name = method.rpartition("/")[2]
    if name == "Predict":
        stubs.prediction.Predict(REQUEST, timeout=20)
    elif name == "GetModelVersion":
        stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest(), timeout=20)
    elif name == "ServerReady":
        stubs.inference.ServerReady(inference_pb2.ServerReadyRequest(), timeout=20)
    elif name == "Check":
        stubs.health.Check(health_pb2.HealthCheckRequest(), timeout=20)
    elif name == "Watch":
        next(iter(stubs.health.Watch(health_pb2.HealthCheckRequest(), timeout=20)))
    else:
        reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        next(iter(reflection.ServerReflectionInfo(asked, timeout=20)))


def test_watches_that_are_not_read_do_not_stop_health(stubs: Stubs) -> None:
    request = frame(health_pb2.HealthCheckRequest().SerializeToString())
    with RawConnection(stubs.address, window=0) as hostile:
        for _ in range(90):
            hostile.send(hostile.open("/grpc.health.v1.Health/Watch"), request)
        _wait_for_arrival(hostile)
        _answers(stubs, "grpc.health.v1.Health/Watch")
        _answers(stubs, "grpc.health.v1.Health/Check")
        assert stubs.serving()


def test_watches_are_bounded_and_the_connection_with_the_most_loses_one_first(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_server.transport.health._MAX_WATCHES", 10)
    request = frame(health_pb2.HealthCheckRequest().SerializeToString())
    with RawConnection(stubs.address) as hostile, RawConnection(stubs.address) as other:

        def watch(connection: RawConnection) -> int:
            stream = connection.open("/grpc.health.v1.Health/Watch")
            connection.send(stream, request)
            eventually(lambda: is_answered(connection, stream))
            return stream

        def is_answered(connection: RawConnection, stream: int) -> bool:
            connection.receive(0.1)
            return bool(connection.data[stream]) or stream in connection.ended

        watched = [watch(hostile) for _ in range(10)]
        assert hostile.status(watch(hostile)) == 8
        stream = watch(other)
        assert stream not in other.ended
        hostile.result(watched[-1])
        assert set(hostile.ended) & set(watched) == {watched[-1]}


def test_idle_reflection_and_half_open_calls_do_not_stop_health(stubs: Stubs) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    go = threading.Event()

    def nothing() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        go.wait(60)
        yield from ()

    streams = [reflection.ServerReflectionInfo(nothing(), timeout=60) for _ in range(20)]
    half_open = HalfOpen(stubs.channel, "/mlpserve.v1.ModelService/GetModelVersion", 20)
    time.sleep(0.2)
    assert stubs.serving("")
    assert stubs.serving()
    assert stubs.prediction.Predict(REQUEST, timeout=10).model.version == 1
    for stream in streams:
        stream.cancel()
    half_open.end()
    go.set()


@pytest.mark.parametrize("method", ["Predict", "BatchPredict"])
def test_a_request_that_never_comes_is_refused_in_the_end(
    method: str, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("request_reader", "request_reads"):
        monkeypatch.setattr(f"mlpserve_server.transport.{module}.TOO_SLOW_SECONDS", 0.5)
        monkeypatch.setattr(f"mlpserve_server.transport.{module}.SLOW_SECONDS", 0.1)
    go = threading.Event()

    def nothing() -> Iterator[bytes]:
        go.wait(60)
        yield from ()

    start: Any = stubs.channel.stream_unary(f"/mlpserve.v1.PredictionService/{method}")
    call = start.future(nothing(), timeout=30)
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no request in" in call.details()
    go.set()


def test_half_open_calls_do_not_keep_single_calls_waiting(stubs: Stubs) -> None:
    half_open = HalfOpen(stubs.channel, "/mlpserve.v1.PredictionService/Predict", 50)
    assert stubs.prediction.Predict(REQUEST, timeout=20).model.version == 1
    half_open.end()


@pytest.mark.parametrize("method", ["Predict", "BatchPredict"])
def test_a_call_that_has_ended_holds_no_memory(method: str, stubs: Stubs) -> None:
    """However it ended: a cycle would keep its request until garbage is collected."""
    path = f"/mlpserve.v1.PredictionService/{method}"
    call: Any = stubs.channel.unary_unary(path)

    def open_calls() -> list[object]:
        kinds = (grpc.ServicerContext, ServerCall)
        return [each for each in gc.get_objects() if isinstance(each, kinds)]

    gc.freeze()  # what was there before is no call of this test, and takes long to look through
    gc.disable()
    try:
        assert stubs.prediction.Predict(REQUEST, timeout=20).model.version == 1
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=20)  # an array without a shape
        with RawConnection(stubs.address) as connection:
            for _ in range(3):  # ended by the server, reset, and left
                connection.send(connection.open(path), frame(b"abc", length=10))
            connection.end(1)
            connection.reset(3)
            connection.status(1)
        eventually(lambda: not open_calls())
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_flood_of_single_calls_does_not_starve_a_batch(stubs: Stubs) -> None:
    done = threading.Event()
    options = [("grpc.use_local_subchannel_pool", 1)]
    data = REQUEST.SerializeToString()

    def flood() -> None:
        with grpc.insecure_channel(stubs.address, options) as channel:
            call: Any = channel.unary_unary("/mlpserve.v1.PredictionService/Predict")
            while not done.is_set():
                for answer in [call.future(data, timeout=30) for _ in range(90)]:
                    answer.code()

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert len(stubs.prediction.BatchPredict(BATCH, timeout=20).labels) == 4096
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_calls_that_wait_for_a_load_count_among_those_that_wait(
    publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish()
    publish(seed=1)
    stubs = serve(max_waiting=10, standby=0)
    eventually(stubs.serving)
    followed = stubs.manager.store
    load = followed.load

    def slow(version: int) -> Any:
        time.sleep(0.05)
        return load(version)

    monkeypatch.setattr(followed, "load", slow)
    selector = model_pb2.ModelSelector(version=first)
    pinned = pb.PredictRequest(instance=PIXELS, model=selector)
    calls = [stubs.prediction.Predict.future(pinned, timeout=30) for _ in range(90)]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 50
    assert codes.count(grpc.StatusCode.OK) >= 10
    assert stubs.prediction.Predict(REQUEST, timeout=10).model.version == 2


def test_a_very_long_alias_is_not_found_and_not_repeated(stubs: Stubs, refusal: Refuse) -> None:
    selector = model_pb2.ModelSelector(alias="a" * 20_000)
    request = pb.PredictRequest(instance=PIXELS, model=selector)
    refused = refusal(stubs.prediction.Predict, request)
    assert refused.code == grpc.StatusCode.NOT_FOUND
    assert len(refused.message) < 200


def test_a_very_long_page_token_is_refused_by_field(stubs: Stubs, refusal: Refuse) -> None:
    request = model_pb2.ListModelVersionsRequest(page_token="1" * 5000)
    refused = refusal(stubs.models.ListModelVersions, request)
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])
