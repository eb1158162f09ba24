"""Every metric that a server has: what it is called, what it tells, by which labels.

The sets of labels are bounded, whatever callers send: methods and codes are those of the
contract, versions and classes those of manifests, and of both no more than fixed numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

__all__ = ["CODES", "METHODS", "METRICS", "OTHER", "Metric", "MetricDelta"]

# What a worker counted since its last report, and its gauges as they are: metric, labels, and a
# number, or for a histogram how many in each bucket, and last the sum of the values.
MetricDelta = Sequence[tuple[str, Sequence[str], Any]]

# What stands for everything that has no label of its own.
OTHER = "other"
# Methods by their paths.
METHODS = {
    "/mlpserve.v1.PredictionService/Predict": "Predict",
    "/mlpserve.v1.PredictionService/BatchPredict": "BatchPredict",
    "/mlpserve.v1.ModelService/GetModelVersion": "GetModelVersion",
    "/mlpserve.v1.ModelService/ListModelVersions": "ListModelVersions",
    "/mlpserve.v1.ModelService/ListModels": "ListModels",
    "/inference.GRPCInferenceService/ModelInfer": "ModelInfer",
    "/inference.GRPCInferenceService/ModelMetadata": "ModelMetadata",
    "/inference.GRPCInferenceService/ModelReady": "ModelReady",
    "/inference.GRPCInferenceService/ServerLive": "ServerLive",
    "/inference.GRPCInferenceService/ServerMetadata": "ServerMetadata",
    "/inference.GRPCInferenceService/ServerReady": "ServerReady",
}
_NAMES = (*METHODS.values(), OTHER)
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip  # by their numbers

FOLLOWERS = ("store", "certificates", "tokens", "shadow", "records", "reports")

_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LOADS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Metric:
    """`kind` is counter, gauge or histogram, which has upper `bounds` of its buckets.

    `over_workers` tells what a gauge of several workers is: their sum, min or max. `known` are
    the labels that are there from the start, at 0: of what appears with its first count, no rate
    can be computed.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    over_workers: str = "sum"
    known: tuple[tuple[str, ...], ...] = ()


def _counter(name: str, text: str, **labels: Iterable[str]) -> Metric:
    return Metric(name, "counter", text, tuple(labels), known=_known(labels))


def _gauge(name: str, text: str, *labels: str, over_workers: str = "sum") -> Metric:
    return Metric(name, "gauge", text, labels, over_workers=over_workers)


def _histogram(name: str, text: str, bounds: tuple[float, ...], **labels: Iterable[str]) -> Metric:
    return Metric(name, "histogram", text, tuple(labels), bounds, known=_known(labels))


def _known(labels: dict[str, Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(product(*labels.values()))


METRICS = {
    metric.name: metric
    for metric in (
        _counter("mlpserve_calls_total", "calls that have ended", method=_NAMES, code=CODES),
        _histogram("mlpserve_call_seconds", "from arrival to answer", _SECONDS, method=_NAMES),
        _gauge("mlpserve_calls_waiting", "predictions taken on and not yet answered"),
        _counter("mlpserve_rows_total", "rows computed"),
        _gauge("mlpserve_rows_in_flight", "rows of the batches that are being computed"),
        _histogram("mlpserve_product_rows", "rows that shared one matrix product", _ROWS),
        _counter("mlpserve_predictions_total", "rows by their label", version=(), **{"class": ()}),
        _histogram(
            "mlpserve_confidence", "each row's highest probability", _CONFIDENCES, version=()
        ),
        _gauge(
            "mlpserve_model_info", "1 for what answers calls that select nothing",
            "model", "version", "digest", over_workers="max",
        ),
        _gauge(
            "mlpserve_model_created_timestamp_seconds", "when what answers was published",
            "version", over_workers="max",
        ),
        _counter(
            "mlpserve_model_loads_total",
            "loads by each worker: loaded, damaged (failed verification or self-test), "
            "rejected (by the gate), missing, unreadable (the store)",
            result=("loaded", "damaged", "rejected", "missing", "unreadable"),
        ),
        _histogram("mlpserve_model_load_seconds", "loads that succeeded", _LOADS),
        _gauge(
            "mlpserve_store_read_timestamp_seconds",
            "when the store could be read last, by the worker for which that is longest ago",
            over_workers="min",
        ),
        _gauge(
            "mlpserve_shadow_info", "1 for the version that is compared with what answers",
            "version", over_workers="max",
        ),
        _counter(
            "mlpserve_shadow_rows_total",
            "rows compared: with the shadow's label (agreed) or another (differed)",
            version=(), result=("agreed", "differed"),
        ),
        _counter(
            "mlpserve_shadow_difference_total",
            "sum over the rows compared of the mean absolute difference of probabilities",
            version=(),
        ),
        _counter(
            "mlpserve_shadow_dropped_rows_total",
            "rows of the sample that were not compared, since calls piled up",
        ),
        _counter(
            "mlpserve_grpc_errors_total",
            "errors that gRPC itself logged, such as a header that is not UTF-8",
        ),
        _gauge("mlpserve_workers", "workers that run"),
        _gauge("mlpserve_workers_ready", "workers that are ready"),
        _gauge(
            "mlpserve_follower_alive",
            "1 while what follows the store, tokens, certificates and so on runs in every worker",
            "follower", over_workers="min",
        ),
        _counter(
            "mlpserve_follower_failures_total", "looks of a follower that failed",
            follower=FOLLOWERS,
        ),
        _counter("mlpserve_worker_ends_total", "workers that ended unasked and were replaced"),
        _gauge(
            "mlpserve_build_info", "1 for what runs",
            "version", "python", "grpc", "numpy", "transport", over_workers="max",
        ),
        _gauge(
            "mlpserve_start_timestamp_seconds", "when the worker that runs longest started",
            over_workers="min",
        ),
        _counter("mlpserve_cpu_seconds_total", "user and system time of the workers"),
        _gauge("mlpserve_resident_memory_bytes", "resident memory of the workers"),
        _gauge("mlpserve_open_files", "open file descriptors of the workers"),
    )
}  # fmt: skip
