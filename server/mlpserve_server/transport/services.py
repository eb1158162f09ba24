"""The services of a server, which of their methods are hot, and the options of channels."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.feedback import FeedbackDesk
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.transport.health import Health

__all__ = [
    "COPIES",
    "EXPLANATION_SERVICE",
    "FEEDBACK_SERVICE",
    "HOT_METHODS",
    "INFERENCE_SERVICE",
    "MAX_METADATA_BYTES",
    "MAX_REQUEST_BYTES",
    "MODEL_SERVICE",
    "PREDICTION_SERVICE",
    "SMALL_BYTES",
    "Backend",
    "TransportError",
    "channel_options",
    "max_request_bytes",
    "metadata_is_too_large",
    "readiness_of",
    "window_bytes",
]

PREDICTION_SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
EXPLANATION_SERVICE = explanation_pb2.DESCRIPTOR.services_by_name["ExplanationService"].full_name
FEEDBACK_SERVICE = feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
INFERENCE_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# The methods that the direct transport answers by itself.
HOT_METHODS = (
    f"/{PREDICTION_SERVICE}/Predict",
    f"/{PREDICTION_SERVICE}/BatchPredict",
    f"/{INFERENCE_SERVICE}/ModelInfer",
)

# Room for the largest batch of inputs twice the size of MNIST's.
MAX_REQUEST_BYTES = 64 << 20
# How often a request is in memory while it is received, and again while it is parsed.
COPIES = 3
# Of one call; each entry counts 32 more than its characters.
MAX_METADATA_BYTES = 16 << 10
# Requests and answers up to this size are bounded by their number, larger ones by their bytes.
SMALL_BYTES = 16 << 10

# What a connection may send ahead of what is read: where requests may take 2 GiB, as much as
# saves 6 % of the CPU time of a batch of 1,000 images compared with the smallest, which is
# HTTP/2's own. The windows of this many connections take what requests may.
_MIN_WINDOW, _MAX_WINDOW, _WINDOWS = 64 << 10, 1 << 20, 2048

_NEVER_MS = 2**31 - 1  # gRPC's infinity
# A connection without a call is closed then: it holds a descriptor, and clients reconnect.
_IDLE_MS = 120_000

_OPTIONS = [
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    # One connection cannot crowd out the others, least of all one that resets its calls.
    ("grpc.max_concurrent_streams", 100),
    # Ours is the bound on calls, with a status that says so; the core's ends them as CANCELLED.
    ("grpc.server.max_pending_requests", 1 << 20),
    ("grpc.server.max_pending_requests_hard_limit", 1 << 20),
    # Otherwise the windows of connections grow, and what is not read yet is held all the same:
    # 20 calls of 60 MiB, read one by one, took 600 MiB instead of 240. What is read gets a window
    # of its size either way. How large they are instead: window_bytes.
    ("grpc.http2.bdp_probe", 0),
    # What a connection has sent is otherwise read ahead of what is parsed, without a bound: 100
    # connections with frames of no known type, which need no token, took 700 MiB, with this 5. A
    # batch takes the same time. gRPC 1.82 ignores it.
    ("grpc.experimental.tcp_max_read_buffer_size", 64 << 10),
    # transport/compression.py does it, within a bound.
    ("grpc.per_message_decompression", 0),
    # Clients that keep idle connections alive are welcome, ten seconds apart.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Room for tokens and traces. With both limits alike, what passes does so always: between
    # them gRPC would refuse by chance. They hold from when the client has acknowledged the
    # settings; metadata_is_too_large holds before.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # 20,000 calls that are reset at once on one connection made others wait for up to 2.2 s and
    # took 440 MiB; with this 0.15 s and 100 MiB. The protection alone counts streams that have
    # ended but are not taken down yet: 14 % of the calls of a client with 100 in flight were
    # refused. With room for 500 of these the standard transport still refused some, with 2,000
    # none.
    ("grpc.http.overload_protection", 1),
    ("grpc.http2.max_deallocating_streams", 2000),
]


class TransportError(Exception):
    """The transport cannot be had, or an address cannot be taken."""


@dataclass(frozen=True)
class Backend:
    """What a transport carries calls to."""

    data: DataPlane
    catalog: Catalog
    health: Health
    feedback: FeedbackDesk | None = None


def channel_options(
    share_port: bool = False,
    connection_age_seconds: float = 0,
    max_request: int = MAX_REQUEST_BYTES,
    window: int = _MIN_WINDOW,
) -> list[tuple[str, int]]:
    """Return the options of a server.

    Args:
        share_port: Whether other processes may listen on its port.
        connection_age_seconds: Age at which a client is asked to reconnect; 0 is never. There is no
            limit to the time that calls in flight may take then, so that none of them is lost.
        max_request: The largest request in bytes, from `max_request_bytes`.
        window: What a connection may send ahead of what is read, from `window_bytes`.

    """
    age_ms = max(round(connection_age_seconds * 1000), 1) if connection_age_seconds else _NEVER_MS
    # Shared by default in gRPC: then a taken port is not an error but a share of its calls.
    return [
        *_OPTIONS,
        ("grpc.max_receive_message_length", max_request),
        ("grpc.http2.lookahead_bytes", window),
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_connection_age_ms", age_ms),
        ("grpc.max_connection_age_grace_ms", _NEVER_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
    ]


def readiness_of(model: str | None) -> str:
    """Return the health service of a model's predictions; of all of them where it is None."""
    return PREDICTION_SERVICE if model is None else f"{PREDICTION_SERVICE}/{model}"


def max_request_bytes(budget: int) -> int:
    """Return the largest request where requests and answers may take so many bytes.

    Where memory is short that is half of MAX_REQUEST_BYTES, and not less: the largest batch of
    MNIST takes 25 MB.
    """
    return min(MAX_REQUEST_BYTES, max(MAX_REQUEST_BYTES // 2, budget // COPIES))


def window_bytes(budget: int) -> int:
    """Return the window of a connection where requests and answers may take so many bytes."""
    return min(max(budget // _WINDOWS, _MIN_WINDOW), _MAX_WINDOW)


def metadata_is_too_large(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return True beyond MAX_METADATA_BYTES, by HTTP/2's way of counting."""
    size = 0
    for key, value in metadata:  # a comprehension would cost another call
        size += len(key) + len(value) + 32
    return size > MAX_METADATA_BYTES
