"""Compressed requests are inflated within a bound, and no other request is taken for one."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.errors import InvalidInput, Overloaded, RequestTooLarge
from mlpserve_server.transport.compression import inflate, inflate_large, is_compressed
from mlpserve_server.transport.services import COPIES, SMALL_BYTES, max_request_bytes
from tests.support.bursts import BATCH_PREDICT, INFER, PREDICT
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection, frame
from tests.support.server import Run, Serve, Stubs
from tests.support.waiting import eventually

MEBIBYTE = 2**20
SMALL = pb.PredictRequest(instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12)))
SMALL_METHODS = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ServerLive",
    "/mlpserve.v1.ModelService/ListModels",
]
MODULES = (pb, explanation_pb2, feedback_pb2, model_pb2, inference_pb2, health_pb2, reflection_pb2)
REQUESTS: list[Descriptor] = [
    method.input_type
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, lambda d: zlib.compress(d, 1)])
@pytest.mark.parametrize("data", [b"", b"a", bytes(1000), bytes(range(256)) * 40])
def test_what_was_compressed_comes_back(compress: Callable[[bytes], bytes], data: bytes) -> None:
    assert is_compressed(compress(data))
    assert inflate(compress(data), len(data)) == data


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda each: each.full_name)
def test_no_request_begins_as_a_compressed_one_does(request_type: Descriptor) -> None:
    tags = {field.number << 3 | kind for field in request_type.fields for kind in (0, 1, 2, 5)}
    assert not tags & {0x1F, 0x78}
    assert not is_compressed(SMALL.SerializeToString())


def test_a_request_becomes_no_more_than_the_limit() -> None:
    with pytest.raises(RequestTooLarge, match="more than 999 bytes"):
        inflate(gzip.compress(bytes(1000)), 999)
    with pytest.raises(RequestTooLarge):
        inflate(gzip.compress(bytes(100 * MEBIBYTE)), 1000)


def test_a_damaged_request_is_refused() -> None:
    whole = gzip.compress(bytes(range(256)) * 4)
    for end in range(2, len(whole)):
        with pytest.raises(InvalidInput, match="without its end"):
            inflate(whole[:end], 5000)
    with pytest.raises(InvalidInput, match="damaged"):
        inflate(whole[:20] + b"\xff\xff" + whole[22:], 5000)


def test_bytes_behind_the_end_are_refused_and_never_dropped() -> None:
    """Two messages one after another are one message: without the second it is another."""
    for compress in (gzip.compress, zlib.compress):
        for behind in (b"\0", compress(b"more")):
            with pytest.raises(InvalidInput, match="behind its end"):
                inflate(compress(bytes(1000)) + behind, 5000)


@pytest.mark.parametrize("size", [0, 1000, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 5 * MEBIBYTE])
def test_what_a_request_needs_is_reserved_before_it_is_inflated(size: int) -> None:
    reserved: list[int] = []
    limit = 4 * MEBIBYTE
    if size > limit:
        with pytest.raises(RequestTooLarge):
            inflate_large(gzip.compress(bytes(size)), limit, reserved.append)
    else:
        assert len(inflate_large(gzip.compress(bytes(size)), limit, reserved.append)) == size
    usual = [COPIES * MEBIBYTE]
    assert reserved == (usual if size <= MEBIBYTE else [*usual, COPIES * limit])


def test_nothing_is_inflated_that_cannot_be_reserved() -> None:
    def refuse(size: int) -> None:
        raise Overloaded("no memory")

    with pytest.raises(Overloaded):
        inflate_large(gzip.compress(bytes(100)), MEBIBYTE, refuse)


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    return stubs


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_large_compressed_batches_are_answered(compression: grpc.Compression, stubs: Stubs) -> None:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[4096, 12], data=bytes(4096 * 12))
    request = pb.BatchPredictRequest(instances=tensor)
    calls = [
        stubs.prediction.BatchPredict.future(request, compression=compression, timeout=20)
        for _ in range(8)
    ]
    assert [len(call.result().labels) for call in calls] == [4096] * 8
    assert stubs.serving()


@pytest.mark.parametrize("rows", [1, 500])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_every_method_answers_a_compressed_request_as_it_does_another(
    compression: grpc.Compression, rows: int, stubs: Stubs
) -> None:
    values = np.linspace(0, 1, rows * 12, dtype=np.float32).tobytes()
    one = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=values[:48])
    many = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[rows, 12], data=values)
    infer = inference_pb2.ModelInferRequest(model_name="mnist", raw_input_contents=[values])
    infer.inputs.add(name="instances", datatype="FP32", shape=[rows, 12])
    calls: list[tuple[Any, Message]] = [
        (stubs.prediction.Predict, pb.PredictRequest(instance=one)),
        (stubs.prediction.BatchPredict, pb.BatchPredictRequest(instances=many)),
        (stubs.inference.ModelInfer, infer),
        (stubs.explanation.Explain, explanation_pb2.ExplainRequest(instances=many)),
        (stubs.models.ListModelVersions, model_pb2.ListModelVersionsRequest(page_size=3)),
    ]
    for call, request in calls:
        assert call(request, compression=compression, timeout=20) == call(request, timeout=20)


@pytest.mark.parametrize("method", [PREDICT, BATCH_PREDICT, INFER])
def test_a_damaged_compressed_request_has_a_status(method: str, stubs: Stubs) -> None:
    whole = gzip.compress(SMALL.SerializeToString())
    with RawConnection(stubs.address) as connection:
        for data in (whole[:-4], whole[:12] + b"\xff\xff" + whole[14:]):
            stream = connection.open(method, ("grpc-encoding", "gzip"))
            connection.send(stream, frame(data, compressed=True), end=True)
            assert connection.status(stream) == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("method", SMALL_METHODS)
def test_methods_of_small_requests_inflate_no_large_one(
    method: str, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def watched(request: bytes, limit: int) -> bytes:
        limits.append(limit)
        return inflate(request, limit)

    for user in ("request_reads", "compression"):
        monkeypatch.setattr(f"mlpserve_server.transport.{user}.inflate", watched)
    bomb = gzip.compress(bytes(MEBIBYTE))
    with RawConnection(stubs.address) as connection:
        stream = connection.open(method, ("grpc-encoding", "gzip"))
        connection.send(stream, frame(bomb, compressed=True), end=True)
        assert connection.status(stream) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert limits == [SMALL_BYTES]


def test_compressed_calls_are_refused_no_sooner_than_others(publish: Publish, serve: Serve) -> None:
    """Also where the memory of two of the largest requests is all that there is."""
    publish()
    stubs = serve(max_bytes=2 * COPIES * max_request_bytes(0))
    eventually(stubs.serving)
    data = bytes(2 * SMALL_BYTES)  # too long for the model, which its answer says
    request = pb.PredictRequest(instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, data=data))
    calls = [
        stubs.prediction.Predict.future(request, compression=grpc.Compression.Gzip, timeout=60)
        for _ in range(32)
    ]
    assert {call.code() for call in calls} == {grpc.StatusCode.INVALID_ARGUMENT}


def test_calls_that_become_large_take_no_more_memory_than_others(
    publish: Publish, run: Run
) -> None:
    publish()
    process = run("--max-bytes", str(8 * MEBIBYTE))
    address = process.event("listening")["address"]
    process.event("serving")
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3], data=bytes(30 * MEBIBYTE))
    packed = gzip.compress(pb.PredictRequest(instance=tensor).SerializeToString(), 1)
    connections = [RawConnection(address) for _ in range(10)]
    streams = []
    for connection in connections:
        connection.receive(1)
        for _ in range(5):
            stream = connection.open(PREDICT, ("grpc-encoding", "gzip"))
            connection.send(stream, frame(packed, compressed=True), end=True)
            streams.append((connection, stream))
    codes = {connection.status(stream) for connection, stream in streams}
    for connection in connections:
        connection.close()
    refusals = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT
    assert codes <= {code.value[0] for code in refusals}
    peak = _peak(process.process.pid)
    # Inflated by gRPC's core they took 1,600 MiB more.
    assert peak < 300 * MEBIBYTE, f"{peak / MEBIBYTE:.0f} MiB"


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
