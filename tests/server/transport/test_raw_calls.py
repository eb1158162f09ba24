"""Calls that no gRPC client would make are refused alike by both transports."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.transport.methods import MAX_OTHER_CALLS
from mlpserve_server.transport.services import COPIES, MAX_REQUEST_BYTES
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection, frame, rapid_reset
from tests.support.server import ANY_TRANSPORT, Serve, Stubs
from tests.support.waiting import eventually

PREDICT = "/mlpserve.v1.PredictionService/Predict"
METHODS = [
    PREDICT,
    "/mlpserve.v1.PredictionService/BatchPredict",
    "/mlpserve.v1.ModelService/GetModelVersion",
    "/inference.GRPCInferenceService/ModelInfer",
]
PIXELS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
REQUEST = pb.PredictRequest(instance=PIXELS)
CANCELLED, UNIMPLEMENTED, EXHAUSTED = 1, 12, 8


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    return stubs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0", frame(b"abc", length=10)],
    ids=["no message", "a cut prefix", "a cut message"],
)
def test_a_call_without_a_whole_message_is_unimplemented(
    data: bytes, method: str, stubs: Stubs
) -> None:
    with RawConnection(stubs.address) as connection:
        stream = connection.open(method)
        if data:
            connection.send(stream, data)
        connection.end(stream)
        assert connection.status(stream) == UNIMPLEMENTED


@pytest.mark.parametrize("method", METHODS)
def test_a_message_that_claims_to_be_too_long_is_refused_before_it_comes(
    method: str, stubs: Stubs
) -> None:
    with RawConnection(stubs.address) as connection:
        stream = connection.open(method)
        connection.send(stream, frame(b"", length=2**31))
        assert connection.status(stream) == EXHAUSTED


@pytest.mark.parametrize("method", METHODS)
def test_metadata_right_behind_the_preface_are_limited(method: str, stubs: Stubs) -> None:
    with RawConnection(stubs.address) as connection:
        # Many small ones: hpack's encoder takes seconds for a single one of this size.
        stream = connection.open(method, *((f"x-large-{n}", "x" * 1000) for n in range(200)))
        assert connection.status(stream) == EXHAUSTED


def test_reset_calls_do_not_make_others_fail(stubs: Stubs) -> None:
    done = threading.Event()
    codes: set[grpc.StatusCode] = set()

    def call() -> None:
        while not done.is_set():
            codes.add(stubs.prediction.Predict.future(REQUEST, timeout=20).code())

    neighbour = threading.Thread(target=call)
    neighbour.start()
    try:
        with RawConnection(stubs.address) as connection:
            connection.receive(1)  # the server's settings
            connection.socket.sendall(rapid_reset(PREDICT, 5000))
            assert stubs.serving()
    finally:
        done.set()
        neighbour.join()
    assert codes == {grpc.StatusCode.OK}


def test_many_calls_on_one_connection_are_queued_and_not_refused(stubs: Stubs) -> None:
    """A protection from reset calls must not count those of a busy client."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(stubs.address, options) as channel:
        predict: Any = channel.unary_unary(PREDICT)
        data = REQUEST.SerializeToString()
        for _ in range(5):
            calls = [predict.future(data, timeout=20) for _ in range(300)]
            assert {call.code() for call in calls} == {grpc.StatusCode.OK}


@ANY_TRANSPORT
@pytest.mark.parametrize("method", ["ListModelVersions", "ListModels"])
def test_unread_answers_of_every_method_are_limited(method: str, stubs: Stubs) -> None:
    connections = [RawConnection(stubs.address, window=0) for _ in range(3)]
    path = f"/mlpserve.v1.ModelService/{method}"
    streams = []
    for connection in connections:
        connection.receive(1)
        for _ in range(90):
            stream = connection.open(path)
            connection.send(stream, frame(b""), end=True)
            streams.append((connection, stream))

    def unread() -> int:
        for connection in connections:
            connection.receive(0)
        return sum(stream not in connection.ended for connection, stream in streams)

    # Most beyond the limit are refused. Where it takes a second to send them, the oldest unread
    # ones are given up for some of them.
    eventually(lambda: unread() <= MAX_OTHER_CALLS)
    ends = [connection.headers[stream].get("grpc-status") for connection, stream in streams]
    assert {int(status) for status in ends if status} <= {EXHAUSTED, CANCELLED}
    assert stubs.prediction.Predict(REQUEST, timeout=10).model.version == 1
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("transport", ["direct", "standard"])
def test_an_unread_answer_keeps_no_batch_waiting_for_long(
    transport: str, publish: Publish, serve: Serve
) -> None:
    """Where one request may take all the memory that requests may have."""
    publish()
    stubs = serve(transport=transport, max_bytes=COPIES * MAX_REQUEST_BYTES)
    eventually(stubs.serving)
    rows = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[4096, 12], data=bytes(4096 * 12))
    batch = pb.BatchPredictRequest(instances=rows)
    with RawConnection(stubs.address, window=0) as connection:
        connection.receive(1)
        stream = connection.open("/mlpserve.v1.PredictionService/BatchPredict")
        connection.send(stream, frame(batch.SerializeToString()), end=True)

        def is_answered() -> bool:
            connection.receive(0.1)
            return bool(connection.headers[stream])

        eventually(is_answered)
        answer = stubs.prediction.BatchPredict(batch, timeout=25)  # before 30 s are over
        assert len(answer.labels) == 4096


def test_a_message_that_inflates_beyond_the_limit_is_refused(stubs: Stubs) -> None:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 12], data=bytes(65 << 20))
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(stubs.address, options) as channel:
        call: Callable[..., Any] = channel.unary_unary(PREDICT)
        data = pb.PredictRequest(instance=tensor).SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            call(data, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
