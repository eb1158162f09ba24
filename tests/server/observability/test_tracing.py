"""Traces: spans of sampled calls reach a collector, as part of the caller's trace."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, TypeAlias

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra telemetry is not installed")

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from mlpserve_server.observability.tracing import _peer
from tests.support.publishing import Publish
from tests.support.server import Run, Serve
from tests.support.waiting import eventually

SINGLE = pb.PredictRequest(instance=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12)))
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector on a free port, which keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Any]:
        batches = [batch for r in self.requests for batch in r.resource_spans]
        return [span for b in batches for scope in b.scope_spans for span in scope.spans]

    def stop(self) -> None:
        self._server.stop(None).wait()


def attributes(found: Any) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in found.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.address}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds, not five seconds
    yield collector
    collector.stop()


# Starts a server that traces this share of its calls, and gives its Predict.
Traced: TypeAlias = Callable[[float], Callable[..., Any]]


@pytest.fixture
def traced(collector: Collector, publish: Publish, serve: Serve) -> Traced:
    """Start a server that traces this share of its calls; gives the call."""
    publish()

    def traced(share: float) -> Callable[..., Any]:
        stubs = serve(traces=share)
        eventually(stubs.serving)
        return stubs.prediction.Predict

    return traced


def parent(flags: str) -> list[tuple[str, str]]:
    return [("traceparent", f"00-{TRACE}-{PARENT}-{flags}"), ("tracestate", "shop=basket")]


def test_a_span_says_what_became_of_a_call(traced: Traced, collector: Collector) -> None:
    before = time.time_ns()
    traced(1.0)(SINGLE)
    eventually(lambda: len(collector.spans()) == 1)
    (span,) = collector.spans()
    assert span.name == "mlpserve.v1.PredictionService/Predict"
    assert span.kind == span.SPAN_KIND_SERVER
    assert before <= span.start_time_unix_nano < span.end_time_unix_nano <= time.time_ns()
    told = attributes(span)
    assert (told["rpc.system"], told["rpc.method"]) == ("grpc", "Predict")
    assert (told["mlpserve.rows"], told["mlpserve.version"]) == (1, 1)
    assert told["mlpserve.model"] == "mnist"
    assert told["rpc.grpc.status_code"] == 0
    assert told["network.peer.address"] == "127.0.0.1"
    assert 0 < told["network.peer.port"] < 1 << 16
    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "mlpserve-server"


def test_a_sampled_caller_finds_the_call_in_its_own_trace(
    traced: Traced, collector: Collector
) -> None:
    traced(1e-9)(SINGLE, metadata=[*parent("01"), ("x-request-id", "order-7")])
    eventually(lambda: len(collector.spans()) == 1)
    (span,) = collector.spans()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.trace_state == "shop=basket"
    assert attributes(span)["mlpserve.request_id"] == "order-7"


def test_a_caller_that_is_not_sampled_is_not_traced(traced: Traced, collector: Collector) -> None:
    call = traced(1.0)
    call(SINGLE, metadata=parent("00"))
    call(SINGLE)
    eventually(lambda: len(collector.spans()) == 1)
    (span,) = collector.spans()
    assert span.trace_id.hex() != TRACE


@pytest.mark.parametrize(
    "wrong",
    [
        "", "00", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01", "x" * 3000,
        f"00-{TRACE}-{PARENT}-zz",
    ],
)  # fmt: skip
def test_a_malformed_parent_begins_a_new_trace(
    traced: Traced, collector: Collector, wrong: str
) -> None:
    traced(1.0)(SINGLE, metadata=[("traceparent", wrong)])
    eventually(lambda: len(collector.spans()) == 1)
    (span,) = collector.spans()
    assert span.trace_id.hex() != TRACE
    assert span.parent_span_id == b""


def test_a_refused_call_has_its_code_and_nothing_of_its_content(
    traced: Traced, collector: Collector
) -> None:
    request = pb.PredictRequest(instance=SINGLE.instance)
    request.model.alias = "secret"
    with pytest.raises(grpc.RpcError):
        traced(1.0)(request, metadata=[("secret", "secret")])
    eventually(lambda: len(collector.spans()) == 1)
    (span,) = collector.spans()
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert "secret" not in str(collector.requests)


def test_what_is_left_is_sent_at_the_end(
    collector: Collector, publish: Publish, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    publish()
    server = run("--traces", "1")
    address = server.event("listening")["address"]
    server.event("serving")
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/mlpserve.v1.PredictionService/Predict")
        for _ in range(10):
            call(SINGLE.SerializeToString(), timeout=10)
    assert server.end() == 0
    assert len(collector.spans()) == 10


def test_a_collector_that_is_away_keeps_no_call_and_no_stop_waiting(
    publish: Publish, run: Run
) -> None:
    publish()
    server = run("--traces", "1", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    address = server.event("listening")["address"]
    server.event("serving")
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/mlpserve.v1.PredictionService/Predict")
        for _ in range(100):
            call(SINGLE.SerializeToString(), timeout=1)
    started = time.monotonic()
    assert server.end() == 0
    assert time.monotonic() - started < 5


def test_traces_without_their_library_are_a_clear_error(publish: Publish, store: Store) -> None:
    hidden = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from mlpserve_server.cli import main\n"
        f"sys.exit(main(['--store', {str(store.folder.parent)!r}, '--listen', '127.0.0.1:0', "
        "'--traces', '1', '--workers', '1']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "pip install '.[telemetry]'" in ended.stderr


@pytest.mark.parametrize(
    ("peer", "address", "port"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7", 4711),
        ("ipv6:%5B::1%5D:4711", "::1", 4711),
        ("ipv6:[fe80::1%25eth0]:4711", "fe80::1%eth0", 4711),
        ("unix:/run/mlpserve.sock", "/run/mlpserve.sock", None),
        ("unix:", None, None),
        ("", None, None),
    ],
)
def test_a_peers_address_and_port_are_attributes_of_their_own(
    peer: str, address: str | None, port: int | None
) -> None:
    attributes = _peer(peer)

    assert attributes.get("network.peer.address") == address
    assert attributes.get("network.peer.port") == port
