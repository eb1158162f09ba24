"""The log and the metrics contain nothing of requests and no secret."""

import base64
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlpserve.open_inference import inference_pb2, inference_pb2_grpc
from mlpserve.v1 import (
    explanation_pb2,
    explanation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    prediction_pb2_grpc,
)
from mlpserve.v1 import prediction_pb2 as pb
from tests.support.publishing import Publish
from tests.support.raw_http2 import RawConnection, frame
from tests.support.server import Run

MARK = "zq7mark"
TOKEN = f"{MARK}-in-the-right-token"
PIXELS = MARK.encode() + bytes(12 - len(MARK))


def requests(channel: grpc.Channel) -> list[tuple[Any, Any]]:
    """Calls and requests, each with the mark in something that a caller chooses."""
    predictions = prediction_pb2_grpc.PredictionServiceStub(channel)
    models = model_pb2_grpc.ModelServiceStub(channel)
    explanations = explanation_pb2_grpc.ExplanationServiceStub(channel)
    inference = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    raw: Any = channel.unary_unary
    good = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[12], data=bytes(48))
    too_large = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=PIXELS)
    too_long = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=MARK.encode() * 9)
    selected = model_pb2.ModelSelector(alias=MARK)
    wrong_name = inference_pb2.ModelInferRequest(model_name=MARK, model_version=MARK, id=MARK)
    wrong_input = inference_pb2.ModelInferRequest(
        model_name="mnist",
        id=MARK,
        inputs=[
            inference_pb2.ModelInferRequest.InferInputTensor(
                name=MARK, datatype=MARK, shape=[1, 12]
            )
        ],
        raw_input_contents=[MARK.encode()],
    )
    return [
        (predictions.Predict, pb.PredictRequest(instance=good)),
        (predictions.Predict, pb.PredictRequest(instance=too_large)),
        (predictions.Predict, pb.PredictRequest(instance=too_long)),
        (predictions.Predict, pb.PredictRequest(instance=good, model=selected)),
        (predictions.BatchPredict, pb.BatchPredictRequest(instances=too_large)),
        (explanations.Explain, explanation_pb2.ExplainRequest(instances=too_large)),
        (models.GetModelVersion, model_pb2.GetModelVersionRequest(model=selected)),
        (models.ListModelVersions, model_pb2.ListModelVersionsRequest(page_token=MARK)),
        (inference.ModelInfer, wrong_name),
        (inference.ModelInfer, wrong_input),
        (inference.ModelReady, inference_pb2.ModelReadyRequest(name=MARK)),
        (inference.ModelMetadata, inference_pb2.ModelMetadataRequest(name=MARK, version=MARK)),
        (health_pb2_grpc.HealthStub(channel).Check, health_pb2.HealthCheckRequest(service=MARK)),
        *((raw(path), MARK.encode() * 3) for path in (f"/{MARK}/It", f"/{MARK}")),
        *((raw(f"/mlpserve.v1.PredictionService/{m}"), MARK.encode() * 3) for m in ("Predict",)),
    ]


def reflect(channel: grpc.Channel, metadata: Any) -> None:
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=MARK)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    list(stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=10))


def misshapen(address: str) -> None:
    """Send what no gRPC client would: the mark beside bytes that are no text, wherever it fits."""
    token = f"Bearer {TOKEN}".encode()
    path = b"/mlpserve.v1.PredictionService/Predict"
    odd = MARK.encode() + b"\xe9"
    for headers in (
        [(b"authorization", token + b"\xff")],
        [(b"authorization", token), (b"x-customer", b"Jos\xe9 " + MARK.encode())],
        [(b"authorization", token), (b"traceparent", odd), (b"x-request-id", odd)],
        [(b"authorization", token), (b"user-agent", odd)],
        [(b":path", path + odd)],
        [(b":path", b"/" + odd)],
        [(b":authority", odd)],
        [(b"grpc-timeout", odd)],
        [(b"grpc-encoding", odd)],
        [(b"content-type", b"application/grpc+" + odd)],
        [(b"x-" + MARK.encode() + b"-bin", b"\xff" + odd)],
    ):
        with RawConnection(address) as connection:
            given = dict(headers)
            start = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
            names: Any = {k.encode(): v for k, v in start.items()} | {
                b"te": b"trailers",
                b"content-type": b"application/grpc",
            }
            all_headers: Any = list((names | given).items())
            connection.http.config.validate_outbound_headers = False
            connection.http.send_headers(1, all_headers)
            connection.flush()
            connection.send(1, frame(odd * 3), end=True)
            connection.result(1)


def test_nothing_that_callers_send_and_no_token_gets_into_log_and_metrics(
    publish: Publish, run: Run, tmp_path: Path
) -> None:
    publish()
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{TOKEN}\n")
    everything = ["--log-level", "debug", "--access-log", "1", "--metrics-listen", "127.0.0.1:0"]
    server = run("--token-file", str(tokens), *everything)
    metrics = server.event("showing metrics")["address"]
    address = server.event("listening")["address"]
    server.event("serving")
    sent, codes = 0, set()
    with grpc.insecure_channel(address) as channel:
        for shown in (f"Bearer {TOKEN}", f"Bearer {MARK}-wrong", MARK):
            metadata = (
                ("authorization", shown),
                ("x-mark", MARK),
                ("x-mark-bin", MARK.encode()),
                ("traceparent", MARK),
                ("x-request-id", f"{MARK} not well formed"),
                ("user-agent", MARK),
            )
            for call, request in requests(channel):
                sent += 1
                try:
                    call(request, metadata=metadata, timeout=10)
                except grpc.RpcError as error:
                    failed: Any = error
                    codes.add(failed.code())
            try:
                reflect(channel, metadata)
            except grpc.RpcError as error:
                failed = error
                assert failed.code() == grpc.StatusCode.UNAUTHENTICATED
        misshapen(address)
        new = tmp_path / "new"
        new.touch(mode=0o600)
        new.write_text(f"# rotated\n{TOKEN}\n{MARK}\n")  # and one that is too short
        new.replace(tokens)
        refusal = server.event("new credentials refused, the old ones stay")
    time.sleep(1.5)  # by then everything is on the page
    with urlopen(metrics, timeout=10) as page:
        shown_by_metrics = page.read().decode()
    server.process.terminate()
    _, rest = server.process.communicate(timeout=30)
    log = "".join(server.log) + rest + shown_by_metrics
    print(f"{sent} calls, {len(log.splitlines())} lines, codes {sorted(map(str, codes))}")
    assert codes >= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT}
    assert grpc.StatusCode.UNKNOWN not in codes
    assert grpc.StatusCode.INTERNAL not in codes
    assert "line 3 of" in refusal["reason"]
    assert log.count('"event": "call"') >= sent / 2, "the access log is on"
    assert 'code="UNAUTHENTICATED"' in shown_by_metrics
    assert "mlpserve_grpc_errors_total 0.0" not in shown_by_metrics, "what is misshapen is counted"
    assert log.count('"event": "gRPC reported an error"') < 5, "and not logged one by one"
    for secret in (MARK, MARK.encode().hex(), base64.b64encode(MARK.encode()).decode()[:8]):
        assert secret not in log.lower(), secret
