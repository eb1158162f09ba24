"""Deadlines and compression that no client library sends, on both transports and two workers."""

import gzip
import zlib

import grpc
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection, frame
from tests.support.server import Run

OK, CANCELLED, EXCEEDED, INTERNAL = 0, 1, 4, 13
# A message that is said to be compressed by no encoding: INTERNAL by the specification. The oldest
# grpcio takes it as it is.
OLD = tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 85)
FLAGGED = {OK, INTERNAL} if OLD else {INTERNAL}
SINGLE = pb.PredictRequest(
    instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
).SerializeToString()
BATCH = pb.BatchPredictRequest(
    instances=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3, 12], data=bytes(36))
).SerializeToString()
REQUESTS = {
    "/mlpserve.v1.PredictionService/Predict": SINGLE,
    "/mlpserve.v1.PredictionService/BatchPredict": BATCH,
    "/mlpserve.v1.ModelService/GetModelVersion": b"",
}
TIMEOUTS = {
    "0n": {EXCEEDED, CANCELLED},  # gRPC ends the call before or after it has reached the server
    "1n": {OK, EXCEEDED, CANCELLED},  # rounded up to a millisecond, which may suffice
    "99999999H": {OK},  # eleven thousand years
    "999999999999S": {OK},
    "-1S": {INTERNAL},
    "1": {INTERNAL},
    "S": {INTERNAL},
    "": {INTERNAL},
}


def compressed(data: bytes) -> list[tuple[str | None, bytes, set[int]]]:
    """The encoding that is said, the message, and the statuses that may be answered."""
    return [
        ("gzip", frame(gzip.compress(data), compressed=True), {OK}),
        ("deflate", frame(zlib.compress(data), compressed=True), {OK}),
        ("gzip", frame(data), {OK}),
        ("gzip", frame(data, compressed=True), {OK}),  # said to be compressed, and is not
        ("identity", frame(data, compressed=True), FLAGGED),
        (None, frame(data, compressed=True), FLAGGED),
        ("zstd", frame(data), {INTERNAL}),
    ]


@pytest.fixture
def address(publish: Publish, run: Run) -> str:
    publish()
    server = run("--workers", "2")
    address = server.event("listening")["address"]
    server.event("serving")
    server.event("serving")
    return str(address)


def status(address: str, path: str, message: bytes, *headers: tuple[str, str]) -> int:
    """Call on a connection of its own, so that both workers get some."""
    with RawConnection(address) as connection:
        stream = connection.open(path, *headers)
        connection.send(stream, message, end=True)
        return connection.status(stream)


def test_any_deadline_and_any_compression_is_answered_by_a_status(address: str) -> None:
    for path, data in REQUESTS.items():
        for timeout, expected in TIMEOUTS.items():
            found = status(address, path, frame(data), ("grpc-timeout", timeout))
            assert found in expected, (path, timeout)
        for encoding, message, expected in compressed(data):
            headers = [("grpc-encoding", encoding)] if encoding else []
            assert status(address, path, message, *headers) in expected, (path, encoding)
    for path, data in REQUESTS.items():
        assert [status(address, path, frame(data)) for _ in range(10)] == [OK] * 10
