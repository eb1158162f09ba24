"""Traces by OpenTelemetry: a span for each sampled call, in the caller's trace if it has one.

OpenTelemetry's own variables configure the collector and the common attributes:
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_RESOURCE_ATTRIBUTES and others.
"""

import random
import re
import threading
from urllib.parse import unquote

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mlpserve_model.process.versions import version_of
from mlpserve_server.observability.metrics import CODES
from mlpserve_server.observability.observer import CallInfo
from mlpserve_server.observability.recorder import CallRecord

__all__ = ["Traces"]

# As W3C specifies it; version ff and ids of zeros are invalid.
_TRACEPARENT = re.compile(
    "(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
)
_SAMPLED = 1
_LAST_EXPORT_SECONDS = 2.0
# What OpenTelemetry's conventions for RPC call an error of the server.
_FAULTS = {
    "UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
}  # fmt: skip


class Traces:
    """Exports spans of sampled calls.

    Args:
        rate: sampling rate, from 0 to 1, of calls whose caller has not decided.

    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        names = {"service.name": "mlpserve-server", "service.version": version_of("mlpserve")}
        resource = Resource(names).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("mlpserve", version_of("mlpserve"))
        self._propagator = TraceContextTextMapPropagator()

    def sample(self, call: CallInfo) -> bool:
        """Return the caller's decision, or True for a random sample."""
        given = call.header("traceparent")
        if given and (parent := _TRACEPARENT.fullmatch(given)):
            return bool(int(parent[1], 16) & _SAMPLED)
        return random.random() < self._rate

    def emit(self, record: CallRecord) -> None:
        """Create the span; it is exported in a batch soon after."""
        end = int(record.ended * 1e9)
        service, _, method = record.method.strip("/").rpartition("/")
        attributes: dict[str, str | int] = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.grpc.status_code": CODES.index(record.code),
            "mlpserve.request_id": record.request_id,
            **_peer(record.peer),
        }
        if record.rows:
            attributes |= {
                "mlpserve.rows": record.rows,
                "mlpserve.model": record.model,
                "mlpserve.version": record.version,
            }
        span = self._tracer.start_span(
            record.method.strip("/"),
            self._propagator.extract(record.trace),
            SpanKind.SERVER,
            attributes,
            start_time=end - int(record.seconds * 1e9),
        )
        if record.code in _FAULTS:
            span.set_status(StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Export the remaining spans, within two seconds."""
        # shutdown() may try for ten seconds, longer than the stop of a server may take.
        export = threading.Thread(target=self._provider.shutdown, daemon=True)
        export.start()
        export.join(_LAST_EXPORT_SECONDS)


def _peer(peer: str) -> dict[str, str | int]:
    """Return the span's attributes of gRPC's name of a peer: `ipv4:HOST:PORT`, `unix:PATH`, ..."""
    kind, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    if kind in ("ipv4", "ipv6") and port.isdecimal():
        return {"network.peer.address": host.strip("[]"), "network.peer.port": int(port)}
    return {"network.peer.address": address} if address else {}
