"""How the servers are asked: each contract's requests as bytes, and its answers as arrays.

Four contracts: mlpserve's own and the Open Inference Protocol v2 over gRPC, that protocol's JSON
over HTTP/1.1, and another JSON for the frameworks whose own way that is.
"""

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from benchmarks.compare.workload import Workload
from mlpserve.v1 import explanation_pb2
from mlpserve.v1 import prediction_pb2 as pb

__all__ = [
    "Call",
    "Calls",
    "answer_of",
    "explanation",
    "json_over_http",
    "open_inference",
    "open_inference_over_http",
    "own_contract",
]

ANSWER_SECONDS = 20.0

Decode = Callable[[bytes], NDArray[np.float32]]


@dataclass(frozen=True)
class Call:
    """One request, sent again and again."""

    path: str
    message: bytes
    decode: Decode
    grpc: bool
    token: str | None = None
    ca: Path | None = None  # encrypted, by a server whose certificate is of this authority

    @property
    def body(self) -> bytes:
        """What a load generator that knows only HTTP has to send."""
        # gRPC puts before a message: not compressed, and its length in four bytes.
        prefix = b"\0" + len(self.message).to_bytes(4, "big") if self.grpc else b""
        return prefix + self.message

    @property
    def headers(self) -> dict[str, str]:
        """Beside those that any HTTP client sends."""
        if self.grpc:
            shown = {"authorization": f"Bearer {self.token}"} if self.token else {}
            return {"content-type": "application/grpc", "te": "trailers", **shown}
        return {"content-type": "application/json"}


class Calls(NamedTuple):
    """One float32 image, and BATCH_ROWS uint8 ones."""

    single: Call
    batch: Call


def answer_of(call: Call, port: int, timeout: float = ANSWER_SECONDS) -> bytes:
    """The answer's bytes; raises OSError, HTTPException or RpcError for none."""
    if call.grpc:
        metadata = [("authorization", f"Bearer {call.token}")] if call.token else None
        with _channel(call, f"localhost:{port}") as channel:
            method: Any = channel.unary_unary(call.path)
            answer: bytes = method(call.message, timeout=timeout, metadata=metadata)
            return answer
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", call.path, call.message, call.headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise http.client.HTTPException(f"status {response.status}: {body[:200]!r}")
    return body


def _channel(call: Call, target: str) -> grpc.Channel:
    # A connection of its own each time.
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    if call.ca is None:
        return grpc.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(call.ca.read_bytes())
    return grpc.secure_channel(target, credentials, options)


def own_contract(workload: Workload) -> Calls:
    """mlpserve.v1.PredictionService."""
    service = "/mlpserve.v1.PredictionService"
    single = pb.PredictRequest(instance=_tensor(pb.DATA_TYPE_FLOAT32, workload.row))
    batch = pb.BatchPredictRequest(instances=_tensor(pb.DATA_TYPE_UINT8, workload.pixels))
    return Calls(
        Call(f"{service}/Predict", single.SerializeToString(), _single, grpc=True),
        Call(f"{service}/BatchPredict", batch.SerializeToString(), _batch, grpc=True),
    )


def explanation(workload: Workload) -> Calls:
    """mlpserve.v1.ExplanationService, of one image and of a batch."""
    path = "/mlpserve.v1.ExplanationService/Explain"
    requests = (
        explanation_pb2.ExplainRequest(instances=tensor)
        for tensor in (
            _tensor(pb.DATA_TYPE_FLOAT32, workload.row[None]),
            _tensor(pb.DATA_TYPE_UINT8, workload.pixels),
        )
    )
    return Calls(*(Call(path, r.SerializeToString(), _scores, grpc=True) for r in requests))


def open_inference(workload: Workload, floats: str, pixels: str, name: str = "rows") -> Calls:
    """inference.GRPCInferenceService/ModelInfer, tensors as raw bytes; the models' names."""
    path = "/inference.GRPCInferenceService/ModelInfer"
    single, batch = _infer(floats, name, workload.row[None]), _infer(pixels, name, workload.pixels)
    return Calls(
        Call(path, single, _infer_answer, grpc=True), Call(path, batch, _infer_answer, grpc=True)
    )


def open_inference_over_http(workload: Workload, model: str, name: str) -> Calls:
    """POST /v2/models/MODEL/infer, tensors as JSON; `name` is the input's."""
    path = f"/v2/models/{model}/infer"
    single, batch = _rest(name, workload.row[None]), _rest(name, workload.pixels)
    return Calls(
        Call(path, single, _rest_answer, grpc=False), Call(path, batch, _rest_answer, grpc=False)
    )


def json_over_http(workload: Workload, single: str, batch: str) -> Calls:
    """{"rows": [[...], ...]} and {"pixels": [[...], ...]}, the two paths.

    Answered by the probabilities or {"probabilities": ...}.
    """
    # Floats as short as they can be without a change of the float32 value.
    row = _short(workload.row)
    pixels = json.dumps(workload.pixels.tolist(), separators=(",", ":"))
    return Calls(
        Call(single, f'{{"rows":[{row}]}}'.encode(), _json_answer, grpc=False),
        Call(batch, f'{{"pixels":{pixels}}}'.encode(), _json_answer, grpc=False),
    )


def _short(values: NDArray[Any]) -> str:
    return "[" + ",".join(str(value) for value in values.ravel()) + "]"


def _rest(name: str, x: NDArray[Any]) -> bytes:
    datatype = {"float32": "FP32", "uint8": "UINT8"}[x.dtype.name]
    tensor = f'"name":"{name}","datatype":"{datatype}","shape":{list(x.shape)},"data":{_short(x)}'
    return f'{{"inputs":[{{{tensor}}}],"outputs":[{{"name":"probabilities"}}]}}'.encode()


def _rest_answer(answer: bytes) -> NDArray[np.float32]:
    (output,) = json.loads(answer)["outputs"]
    return np.array(output["data"], np.float32)


def _tensor(dtype: Any, values: NDArray[Any]) -> pb.Tensor:
    return pb.Tensor(dtype=dtype, shape=values.shape, data=values.tobytes())


def _single(answer: bytes) -> NDArray[np.float32]:
    return np.array(pb.PredictResponse.FromString(answer).probabilities, np.float32)


def _scores(answer: bytes) -> NDArray[np.float32]:
    return np.array(explanation_pb2.ExplainResponse.FromString(answer).scores, np.float32)


def _batch(answer: bytes) -> NDArray[np.float32]:
    return np.frombuffer(pb.BatchPredictResponse.FromString(answer).probabilities.data, "<f4")


def _json_answer(answer: bytes) -> NDArray[np.float32]:
    value = json.loads(answer)
    return np.asarray(value["probabilities"] if isinstance(value, dict) else value, np.float32)


def _infer(model: str, name: str, x: NDArray[Any]) -> bytes:
    request = MODEL_INFER_REQUEST(model_name=model, raw_input_contents=[x.tobytes()])
    datatype = {"float32": "FP32", "uint8": "UINT8"}[x.dtype.name]
    request.inputs.add(name=name, datatype=datatype, shape=x.shape)
    message: bytes = request.SerializeToString()
    return message


def _infer_answer(answer: bytes) -> NDArray[np.float32]:
    return np.frombuffer(MODEL_INFER_RESPONSE.FromString(answer).raw_output_contents[0], "<f4")


def _open_inference_messages() -> tuple[Any, Any]:
    """The parts of the protocol that are used here: field numbers are the protocol's."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="benchmark_open_inference.proto", package="benchmark.inference", syntax="proto3"
    )
    tensor = file.message_type.add(name="Tensor")
    tensor.field.add(name="name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    tensor.field.add(name="datatype", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    tensor.field.add(name="shape", number=3, type=field.TYPE_INT64, label=field.LABEL_REPEATED)
    for name, direction, tensors, raw in (("Request", "input", 5, 7), ("Response", "output", 5, 6)):
        message = file.message_type.add(name=name)
        message.field.add(
            name="model_name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL
        )
        message.field.add(
            name=f"{direction}s",
            number=tensors,
            type=field.TYPE_MESSAGE,
            type_name=".benchmark.inference.Tensor",
            label=field.LABEL_REPEATED,
        )
        message.field.add(
            name=f"raw_{direction}_contents",
            number=raw,
            type=field.TYPE_BYTES,
            label=field.LABEL_REPEATED,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"benchmark.inference.{name}"))
        for name in ("Request", "Response")
    )
    return request, response


MODEL_INFER_REQUEST, MODEL_INFER_RESPONSE = _open_inference_messages()
