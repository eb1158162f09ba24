"""What users give the client, and what servers answer it."""

import io
import json
from contextlib import suppress
from itertools import cycle
from typing import Any

import grpc
import numpy as np
import PIL.Image
from google.protobuf.message import DecodeError

from mlpserve.v1 import model_pb2, prediction_pb2
from mlpserve_client import InvalidInputError, MlpserveError, SettingsError
from mlpserve_client._batches import Batches
from mlpserve_client._blocking import run
from mlpserve_client._calls import Calls
from mlpserve_client._cli.files import read
from mlpserve_client._images import fit
from mlpserve_client._images import read as read_image
from mlpserve_client._inputs import as_array, as_instances
from mlpserve_client._messages import encode, selector
from mlpserve_client._settings import Settings, read_token, resolve
from mlpserve_client._transport import (
    BATCH_PREDICT,
    GET_MODEL,
    LIST_MODELS,
    LIST_VERSIONS,
    PREDICT,
    Method,
)
from tests.fuzz.target import scratch, split, target

RESPONSES: dict[Method[Any, Any], Any] = {
    PREDICT: prediction_pb2.PredictResponse,
    BATCH_PREDICT: prediction_pb2.BatchPredictResponse,
    GET_MODEL: model_pb2.GetModelVersionResponse,
    LIST_MODELS: model_pb2.ListModelsResponse,
    LIST_VERSIONS: model_pb2.ListModelVersionsResponse,
}
X = np.zeros((3, 4), np.float32)
CODES = list(grpc.StatusCode)
DTYPES = [
    "u1",
    "i1",
    ">u2",
    "<i8",
    "<u8",
    "?",
    "<f2",
    ">f4",
    "<f8",
    "<c8",
    "S4",
    "U2",
    "M8[s]",
    "O",
]


@target(InvalidInputError, UserWarning)  # it warns of uneven light
def image(data: bytes) -> None:
    fitted = fit(read_image(io.BytesIO(data), "an image"), (28, 28))
    assert fitted.shape == (28, 28)
    assert fitted.min() >= 0
    assert fitted.max() <= 1


@target(InvalidInputError)
def file(data: bytes) -> None:
    read(str(scratch("input", data)))


@target(InvalidInputError, UnicodeDecodeError, json.JSONDecodeError, RecursionError)
def values(data: bytes) -> None:
    """Whatever Python objects JSON can write, as an instance, a batch, a version, an alias."""
    given = json.loads(data)
    if isinstance(given, str):  # the path of an image
        return
    if isinstance(given, int):
        selector(given, None)
    encode(as_array(given))
    encode(as_instances(given))


@target(InvalidInputError)
def array(data: bytes) -> None:
    """An array of any dtype: its first byte says which, its second how many columns."""
    dtype = np.dtype(DTYPES[data[0] % len(DTYPES)] if data else "u1")
    columns = data[1] if data[1:] else 0
    if dtype.hasobject:
        given = np.array([*data[2:], *map(str, data[2:])], dtype)
    else:
        given = np.frombuffer(data[2 : len(data) - (len(data) - 2) % dtype.itemsize], dtype)
    if columns and given.size % columns == 0:
        given = given.reshape(-1, columns)
    tensor = encode(as_array(given))
    assert len(tensor.data) == given.size * (1 if tensor.dtype == 1 else 4)
    encode(as_instances(given))


@target(InvalidInputError, UnicodeDecodeError)
def alias(data: bytes) -> None:
    found = selector(None, data.decode())
    assert found is not None
    found.SerializeToString()


@target(SettingsError, UnicodeDecodeError)
def settings(data: bytes) -> None:
    lines = (line.partition("=") for line in data.decode().splitlines())
    environ = {name: value for name, _, value in lines}
    resolved = resolve(environ)
    assert resolved.targets


@target(SettingsError)
def token_file(data: bytes) -> None:
    resolve({}, target="localhost:1", token=read_token(scratch("token", data)))


@target()
def answers(data: bytes) -> None:
    """A hostile server, for every call: each part of the input is one of its answers."""
    parts = split(data, data.count(b"\n--\n") + 1)
    for call in (_predict, _predict_image, _predict_batch, _predict_stream, _models, _health):
        with suppress(MlpserveError):
            call(Calls(_Hostile(parts), Settings()))


def _predict(calls: Calls) -> None:
    prediction = run(calls.predict(X[0]))
    assert prediction.name in prediction.class_names
    prediction.top()


def _predict_image(calls: Calls) -> None:
    run(calls.predict(PIL.Image.fromarray(np.eye(9, dtype=np.uint8) * 255)))


def _predict_batch(calls: Calls) -> None:
    assert len(run(Batches(calls).predict_batch(X))) == len(X)


def _predict_stream(calls: Calls) -> None:
    assert len(run(_listed(calls))) == len(X)


def _models(calls: Calls) -> None:
    run(calls.model())
    run(calls.models())
    run(calls.versions())


def _health(calls: Calls) -> None:
    run(calls.health())


async def _listed(calls: Calls) -> list[Any]:
    return [prediction async for prediction in Batches(calls).predict_stream(X, batch_size=2)]


class _Failed(grpc.RpcError):
    """A call that failed with this code; the rest of the part is text and google.rpc.Status."""

    def __init__(self, part: bytes) -> None:
        self._code = CODES[part[0] % len(CODES)]
        text, _, self._details = part[1:].partition(b"\0")
        self._text = text.decode(errors="replace")

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._details),)


class _Answered:
    def __init__(self, transport: "_Hostile", method: Method[Any, Any]) -> None:
        self._transport, self._method = transport, method

    async def result(self) -> Any:
        return self._transport.answer(self._method)

    def cancel(self) -> None:
        pass


class _Hostile:
    """A transport whose server gives these answers in turn, again and again.

    A part that begins with E is a failure, any other the bytes of a response; what is no response
    fails as it does in gRPC.
    """

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = cycle(parts)

    def answer(self, method: Method[Any, Any]) -> Any:
        part = next(self._parts)
        if part[:1] == b"E" and part[1:]:
            raise _Failed(part[1:])
        try:
            return RESPONSES[method].FromString(part)
        except DecodeError as error:
            raise _Failed(bytes([CODES.index(grpc.StatusCode.INTERNAL)])) from error

    async def call(self, method: Method[Any, Any], request: Any, timeout: float) -> Any:
        return self.answer(method)

    def start(self, method: Method[Any, Any], request: Any, timeout: float) -> _Answered:
        return _Answered(self, method)

    async def check(self, target: str, request: bytes, timeout: float) -> bytes:
        part = next(self._parts)
        if part[:1] == b"E" and part[1:]:
            raise _Failed(part[1:])
        return part

    async def sleep(self, seconds: float) -> None:
        pass
