"""The recorder counts what it observes, ten times a second, in a thread of its own.

The threads that answer calls only append to queues, without a lock. The recorder's thread drains
the queues, counts with NumPy, reports the counts, and passes sampled calls to the access log and
the traces.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Manifest
from mlpserve_model.process.follower import Follower, Guard
from mlpserve_server.observability.metrics import CODES, METHODS, METRICS, OTHER, MetricDelta
from mlpserve_server.observability.observer import CallInfo, Observer

__all__ = ["CallRecord", "CallSink", "Recorder"]

# Maximum number of classes with labels of their own, and their maximum length.
MAX_CLASSES, MAX_CLASS_LENGTH = 100, 64

_TICK_SECONDS = 0.1
_GAUGES_SECONDS = 1.0

# Maximum lengths of the queues while the thread is blocked, by a full pipe of the log for instance;
# beyond them the oldest entries are dropped.
_MAX_CALLS, _MAX_OTHERS = 100_000, 10_000

_Product = tuple[Manifest, NDArray[np.intp], NDArray[np.float32]]
_Values = NDArray[np.float64] | NDArray[np.float32]


class CallRecord(NamedTuple):
    """A single call for the access log and traces.

    Attributes:
        method: path of the method, or "other".
        code: name of the gRPC code.
        ended: Unix time of the end, in seconds.
        seconds: duration.
        peer: address of the caller.
        request_id: the caller's id, or a generated one.
        trace: the caller's traceparent and tracestate.
        rows: number of rows computed; 0 if none were.
        version: version that computed them; 0 if none did.
        model: name of its model; "" if none did.

    """

    method: str
    code: str
    ended: float
    seconds: float
    peer: str
    request_id: str
    trace: Mapping[str, str]
    rows: int
    version: int
    model: str


class CallSink(Protocol):
    """Receives single calls: `sample` runs on the request path, `emit` on the recorder's thread."""

    def sample(self, call: CallInfo) -> bool:
        """Return True to receive this call; must take about a microsecond."""
        ...

    def emit(self, record: CallRecord) -> None:
        """Receive a sampled call."""
        ...

    def close(self) -> None:
        """Finish: there are no more calls."""
        ...


class Recorder(Observer):
    """An Observer that counts.

    Args:
        report: receives the counts; None to count nothing.
        sinks: receive sampled calls.
        on_end: called when the recorder's thread ends though it was not stopped.

    """

    active = True

    def __init__(
        self,
        report: Callable[[MetricDelta], None] | None,
        sinks: Sequence[CallSink] = (),
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._report = report
        self._sinks = sinks
        self._calls: deque[tuple[str, int, float]] = deque(maxlen=_MAX_CALLS)
        self._products: deque[_Product] = deque(maxlen=_MAX_OTHERS)
        self._events: deque[tuple[str, tuple[str, ...], float]] = deque(maxlen=_MAX_OTHERS)
        self._records: deque[tuple[CallSink, CallRecord]] = deque(maxlen=_MAX_OTHERS)
        self._in_flight: dict[object, int] = {}
        self._gauges: dict[str, Callable[[], Mapping[tuple[str, ...], float]]] = {}
        self._next_gauges = 0.0
        count = partial(self.count, "mlpserve_follower_failures_total", "records")
        self.follower = Follower("records", self.flush, _TICK_SECONDS, count, on_end)
        self.gauge("mlpserve_rows_in_flight", lambda: {(): sum(list(self._in_flight.values()))})

    def start(self) -> None:
        """Start the thread."""
        self.follower.start(_TICK_SECONDS)

    def close(self) -> None:
        """Stop the thread, count the rest, and close the sinks."""
        self.follower.join()
        Guard("records").run(self.flush)
        for sink in self._sinks:
            sink.close()

    def ended(self, call: CallInfo, code: int) -> None:
        """Queue a call."""
        seconds = time.monotonic() - call.started
        if self._report:
            self._calls.append((call.method, code, seconds))
        for sink in self._sinks:
            if sink.sample(call):
                self._records.append((sink, _record(call, code, seconds)))

    def predicted(self, manifest: Manifest, probabilities: NDArray[np.float32]) -> None:
        """Queue the rows of a matrix product."""
        if self._report:
            labels, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
            self._products.append((manifest, labels, confidences))

    @contextmanager
    def rows(self, count: int) -> Iterator[None]:
        """Count these rows as in flight while the context lasts."""
        key = object()
        self._in_flight[key] = count
        try:
            yield
        finally:
            del self._in_flight[key]

    def count(self, metric: str, *labels: str, amount: float = 1) -> None:
        """Queue an increment of a counter."""
        if self._report:
            self._events.append((metric, labels, amount))

    def observe(self, metric: str, value: float, *labels: str) -> None:
        """Queue a value of a histogram."""
        if self._report:
            self._events.append((metric, labels, value))

    def gauge(self, metric: str, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Register a gauge, which is read once a second."""
        self._gauges[metric] = read

    def flush(self) -> None:
        """Count and report what was queued since the last call."""
        if self._report:
            report = [*self._call_counts(), *self._row_counts(), *self._event_values()]
            if time.monotonic() >= self._next_gauges:
                self._next_gauges = time.monotonic() + _GAUGES_SECONDS
                report += self._gauge_values()
            if report:
                self._report(report)
        for sink, record in _drain(self._records):
            sink.emit(record)

    def _call_counts(self) -> MetricDelta:
        ended: defaultdict[str, list[float]] = defaultdict(list)
        codes: defaultdict[tuple[str, str], int] = defaultdict(int)
        for path, code, seconds in _drain(self._calls):
            method = METHODS.get(path, OTHER)
            ended[method].append(seconds)
            codes[method, _code(code)] += 1
        seconds = [_distribution("mlpserve_call_seconds", v, m) for m, v in ended.items()]
        return [*(("mlpserve_calls_total", k, n) for k, n in codes.items()), *seconds]

    def _row_counts(self) -> MetricDelta:
        products = _drain(self._products)
        if not products:
            return []
        rows = [len(labels) for _, labels, _ in products]
        report = [
            ("mlpserve_rows_total", (), sum(rows)),
            _distribution("mlpserve_product_rows", rows),
        ]
        # By the manifest itself: a number may stand for another one after a swap.
        manifests = {id(manifest): manifest for manifest, _, _ in products}
        for manifest in manifests.values():
            named = manifest.model, str(manifest.version)
            mine = [(labels, c) for m, labels, c in products if m is manifest]
            counts = np.bincount(np.concatenate([labels for labels, _ in mine])).tolist()
            if manifest.network.output_activation != "identity":  # else no probabilities
                confidences = np.concatenate([c for _, c in mine])
                report.append(_distribution("mlpserve_confidence", confidences, *named))
            report += [
                ("mlpserve_predictions_total", (*named, _class(manifest, label)), count)
                for label, count in enumerate(counts)
                if count
            ]
        return report

    def _event_values(self) -> MetricDelta:
        return [
            _distribution(name, [value], *labels)
            if METRICS[name].kind == "histogram"
            else (name, labels, value)
            for name, labels, value in _drain(self._events)
        ]

    def _gauge_values(self) -> MetricDelta:
        return [
            (name, labels, value)
            for name, read in self._gauges.items()
            for labels, value in read().items()
        ]


def _drain(queue: deque[Any]) -> list[Any]:
    """Remove and return the entries of a queue that other threads may be appending to."""
    return [queue.popleft() for _ in range(len(queue))]


def _distribution(
    name: str, values: Sequence[float] | _Values, *labels: str
) -> tuple[str, tuple[str, ...], list[float]]:
    """Return the entry of a report for a histogram."""
    bounds = METRICS[name].bounds
    array = np.asarray(values, np.float64)
    counts = np.bincount(np.searchsorted(bounds, array), minlength=len(bounds) + 1)
    return name, labels, [*counts.tolist(), float(array.sum())]


def _record(call: CallInfo, code: int, seconds: float) -> CallRecord:
    method = call.method if call.method in METHODS else OTHER
    trace = {name: call.header(name) for name in ("traceparent", "tracestate")}
    told = (method, _code(code), time.time(), seconds, call.peer(), call.request_id, trace)
    return CallRecord(*told, call.rows, call.version, call.model)


def _code(number: int) -> str:
    return CODES[number] if 0 <= number < len(CODES) else "UNKNOWN"


def _class(manifest: Manifest, label: int) -> str:
    return (
        manifest.signature.class_names[label][:MAX_CLASS_LENGTH] if label < MAX_CLASSES else OTHER
    )
