"""What becomes of what the observer hears: counted ten times a second, off the callers' path.

The threads that answer only put down what they saw, which takes no lock. One thread of the
journal takes it up, counts it with NumPy, reports the counts, and passes single calls on to
whoever wants them: the access log, traces.
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
from mlpserve_server.observability.outcomes import rows_and_version

__all__ = ["CallRecord", "CallSink", "Recorder"]

# Classes that have labels of their own, and the longest of these.
MAX_CLASSES, MAX_CLASS_LENGTH = 100, 64

_TICK_SECONDS = 0.1
_GAUGES_SECONDS = 1.0

# Kept while the thread cannot go on, because nobody reads the log for instance; then the oldest go.
_MAX_CALLS, _MAX_OTHERS = 100_000, 10_000

_Product = tuple[Manifest, NDArray[np.intp], NDArray[np.float32]]
_Values = NDArray[np.float64] | NDArray[np.float32]


class CallRecord(NamedTuple):
    """One call, by itself: `ended` by time.time, times in seconds.

    `rows` and `version` are 0 where none were computed.
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


class CallSink(Protocol):
    """Wants single calls: asked on the callers' path, told off it."""

    def sample(self, call: CallInfo) -> bool:
        """Whether this call is to be told of; a matter of a microsecond."""
        ...

    def emit(self, record: CallRecord) -> None:
        """Here is one of those that were wanted."""
        ...

    def close(self) -> None:
        """There will be no more."""
        ...


class Recorder(Observer):
    """An Observer that counts. `report` gets the counts; None: nobody wants them."""

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
        """Begin to count."""
        self.follower.start(_TICK_SECONDS)

    def close(self) -> None:
        """Count what is left, and end."""
        self.follower.join()
        Guard("records").run(self.flush)
        for sink in self._sinks:
            sink.close()

    def ended(self, call: CallInfo, code: int, response: bytes | None = None) -> None:
        """Put down a call."""
        seconds = time.monotonic() - call.started
        if self._report:
            self._calls.append((call.method, code, seconds))
        for sink in self._sinks:
            if sink.sample(call):
                self._records.append((sink, _record(call, code, seconds, response)))

    def predicted(self, manifest: Manifest, probabilities: NDArray[np.float32]) -> None:
        """Put down the rows of a product."""
        if self._report:
            labels, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
            self._products.append((manifest, labels, confidences))

    @contextmanager
    def rows(self, count: int) -> Iterator[None]:
        """Hold so many rows as being in flight."""
        key = object()
        self._in_flight[key] = count
        try:
            yield
        finally:
            del self._in_flight[key]

    def count(self, metric: str, *labels: str, amount: float = 1) -> None:
        """Put down something that happened."""
        if self._report:
            self._events.append((metric, labels, amount))

    def observe(self, metric: str, value: float, *labels: str) -> None:
        """Put down a value."""
        if self._report:
            self._events.append((metric, labels, value))

    def gauge(self, metric: str, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Read this for each report."""
        self._gauges[metric] = read

    def flush(self) -> None:
        """Take up what was put down since the last look; the thread's part."""
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
        manifests = {manifest.version: manifest for manifest, _, _ in products}
        for version, manifest in manifests.items():
            mine = [(labels, c) for m, labels, c in products if m.version == version]
            confidences = np.concatenate([c for _, c in mine])
            counts = np.bincount(np.concatenate([labels for labels, _ in mine])).tolist()
            report.append(_distribution("mlpserve_confidence", confidences, str(version)))
            report += [
                ("mlpserve_predictions_total", (str(version), _class(manifest, label)), count)
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
    """What was in the queue, which others may be adding to."""
    return [queue.popleft() for _ in range(len(queue))]


def _distribution(
    name: str, values: Sequence[float] | _Values, *labels: str
) -> tuple[str, tuple[str, ...], list[float]]:
    """A report's entry for a histogram."""
    bounds = METRICS[name].bounds
    array = np.asarray(values, np.float64)
    counts = np.bincount(np.searchsorted(bounds, array), minlength=len(bounds) + 1)
    return name, labels, [*counts.tolist(), float(array.sum())]


def _record(call: CallInfo, code: int, seconds: float, response: bytes | None) -> CallRecord:
    method = call.method if call.method in METHODS else OTHER
    trace = {name: call.header(name) for name in ("traceparent", "tracestate")}
    told = (method, _code(code), time.time(), seconds, call.peer(), call.request_id, trace)
    return CallRecord(*told, *rows_and_version(call.method, response or b""))


def _code(number: int) -> str:
    return CODES[number] if 0 <= number < len(CODES) else "UNKNOWN"


def _class(manifest: Manifest, label: int) -> str:
    return (
        manifest.signature.class_names[label][:MAX_CLASS_LENGTH] if label < MAX_CLASSES else OTHER
    )
