"""Every metric of a server, declared once: name, kind, meaning, labels.

Label cardinality is bounded, whatever callers send: methods and codes are those of the contract,
versions and classes those of manifests, and there is a maximum of both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

__all__ = ["CODES", "METHODS", "METRICS", "OTHER", "Metric", "MetricDelta"]

# The counts of a worker since its last report, and its gauges: metric, labels, and a number, or for
# a histogram the count of each bucket followed by the sum of the values.
MetricDelta = Sequence[tuple[str, Sequence[str], Any]]

# The label of everything that has none of its own.
OTHER = "other"
# Methods by their paths.
METHODS = {
    "/mlpserve.v1.ExplanationService/Explain": "Explain",
    "/mlpserve.v1.FeedbackService/Report": "Report",
    "/mlpserve.v1.PredictionService/Predict": "Predict",
    "/mlpserve.v1.PredictionService/BatchPredict": "BatchPredict",
    "/mlpserve.v1.ModelService/GetModelVersion": "GetModelVersion",
    "/mlpserve.v1.ModelService/ListModelVersions": "ListModelVersions",
    "/mlpserve.v1.ModelService/ListModels": "ListModels",
    "/inference.GRPCInferenceService/ModelConfig": "ModelConfig",
    "/inference.GRPCInferenceService/ModelInfer": "ModelInfer",
    "/inference.GRPCInferenceService/ModelMetadata": "ModelMetadata",
    "/inference.GRPCInferenceService/ModelReady": "ModelReady",
    "/inference.GRPCInferenceService/RepositoryIndex": "RepositoryIndex",
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

FOLLOWERS = (
    "store", "watch", "certificates", "tokens", "receipt keys", "shadow", "drift", "records",
    "reports",
)  # fmt: skip

_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LOADS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of a metric.

    Attributes:
        name: name as Prometheus has it.
        kind: counter, gauge or histogram.
        help: meaning, with the unit.
        labels: names of the labels.
        bounds: upper bounds of a histogram's buckets.
        over_workers: how the gauges of several workers are combined: sum, min, max or mean.
        known: values of the labels that exist from the start, at 0. Of a series that appears with
            its first count, Prometheus cannot compute a rate.

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
        _histogram(
            "mlpserve_call_seconds", "seconds from the arrival of a call to its end",
            _SECONDS, method=_NAMES,
        ),
        _gauge("mlpserve_calls_waiting", "predictions that are admitted and not yet answered"),
        _counter("mlpserve_rows_total", "rows computed"),
        _gauge("mlpserve_rows_in_flight", "rows of batches in flight"),
        _histogram("mlpserve_product_rows", "rows in one matrix product", _ROWS),
        _counter(
            "mlpserve_predictions_total", "rows by predicted class",
            model=(), version=(), **{"class": ()}
        ),
        _histogram(
            "mlpserve_confidence",
            "highest probability of each row, where the answers are probabilities",
            _CONFIDENCES, model=(), version=()
        ),
        _gauge(
            "mlpserve_model_info", "1 for the version that answers calls which select none",
            "model", "version", "digest", over_workers="max",
        ),
        _gauge(
            "mlpserve_model_created_timestamp_seconds",
            "Unix time at which the version that answers was published",
            "model", "version", over_workers="max",
        ),
        _gauge(
            "mlpserve_models", "models that are served: answering, or waiting for a version",
            "state", over_workers="max",
        ),
        _counter(
            "mlpserve_model_loads_total",
            "loads in each worker: loaded, damaged (failed verification or self-test), "
            "rejected (by the gate), missing, unreadable (the store)",
            result=("loaded", "damaged", "rejected", "missing", "unreadable"),
        ),
        _histogram("mlpserve_model_load_seconds", "seconds of the loads that succeeded", _LOADS),
        _gauge(
            "mlpserve_store_read_timestamp_seconds",
            "Unix time at which the store was last readable, by the worker where that is oldest",
            over_workers="min",
        ),
        _gauge(
            "mlpserve_shadow_info", "1 for the version that is compared with the one that answers",
            "model", "version", over_workers="max",
        ),
        _counter(
            "mlpserve_shadow_rows_total",
            "rows compared: the shadow predicts the same class (agreed) or another (differed)",
            model=(), version=(), result=("agreed", "differed"),
        ),
        _counter(
            "mlpserve_shadow_difference_total",
            "sum over the rows compared of the mean absolute difference of their probabilities",
            model=(), version=(),
        ),
        _counter(
            "mlpserve_shadow_dropped_rows_total",
            "sampled rows that were not compared because of the load",
        ),
        _counter(
            "mlpserve_receipts_total",
            "receipts given out: drawn for the audit (audit) or not (plain)",
            model=(), version=(), kind=("audit", "plain"),
        ),
        _counter(
            "mlpserve_reports_total",
            "reports kept: of answers drawn for the audit (audit) or of others (volunteered), "
            "whose predicted class was the true one (right) or not (wrong)",
            model=(), version=(), kind=("audit", "volunteered"), answer=("right", "wrong"),
        ),
        _gauge(
            "mlpserve_audit_accuracy",
            "share of right answers among the audited reports that this server has kept since it "
            "started",
            "model", "version",
        ),
        _gauge(
            "mlpserve_audit_accuracy_bound",
            "95 % bounds (low, high) of the accuracy: at one time (wilson), at all times together "
            "(sequence)",
            "model", "version", "interval", "side",
        ),
        _gauge(
            "mlpserve_model_accuracy", "accuracy on the holdout of the version that answers",
            "model", "version", over_workers="max",
        ),
        _counter(
            "mlpserve_reports_known_total",
            "reports not kept because their receipts had been reported before",
        ),
        _gauge(
            "mlpserve_drift_rows", "sampled rows that are compared with the holdout",
            "model", "version",
        ),
        _gauge(
            "mlpserve_drift_p_value",
            "probability of such a difference from the holdout, or a larger one, without drift: of "
            "the predicted classes, the confidence, the energy and the mean input, by the worker "
            "where it is smallest",
            "model", "version", "signal", over_workers="min",
        ),
        _gauge(
            "mlpserve_drift_psi", "population stability index of the rows and the holdout",
            "model", "version", "signal", over_workers="max",
        ),
        _gauge(
            "mlpserve_drift_psi_threshold",
            "what the index exceeds with probability 5 % without drift, for so many rows",
            "model", "version", "signal", over_workers="max",
        ),
        _gauge(
            "mlpserve_drift_class_share",
            "estimated share of the true class among the sampled rows, if only the shares changed",
            "model", "version", "class", over_workers="mean",
        ),
        _gauge(
            "mlpserve_drift_class_share_expected", "share of the true class in the holdout",
            "model", "version", "class", over_workers="max",
        ),
        _counter(
            "mlpserve_grpc_errors_total",
            "errors that gRPC itself logged, such as a header that is not UTF-8",
        ),
        _gauge("mlpserve_workers", "running workers"),
        _gauge("mlpserve_workers_ready", "ready workers"),
        _gauge(
            "mlpserve_follower_alive",
            "1 while the thread that follows the store, tokens, certificates and so on runs in "
            "every worker",
            "follower", over_workers="min",
        ),
        _counter(
            "mlpserve_follower_failures_total",
            "failed attempts of a follower to read what it follows",
            follower=FOLLOWERS,
        ),
        _counter("mlpserve_worker_ends_total", "workers that ended unexpectedly and were replaced"),
        _gauge(
            "mlpserve_build_info", "1 for the running versions of mlpserve and of its libraries",
            "version", "python", "grpc", "numpy", "transport", over_workers="max",
        ),
        _gauge(
            "mlpserve_start_timestamp_seconds", "Unix time at which the oldest worker started",
            over_workers="min",
        ),
        _counter("mlpserve_cpu_seconds_total", "user and system CPU seconds of the workers"),
        _gauge("mlpserve_resident_memory_bytes", "resident memory of the workers"),
        _gauge("mlpserve_open_files", "open file descriptors of the workers"),
    )
}  # fmt: skip
