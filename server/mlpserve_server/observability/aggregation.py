"""The metrics of all workers, added up for Prometheus."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mlpserve_server.observability.accuracy import live_accuracy
from mlpserve_server.observability.metrics import METRICS, OTHER, Metric, MetricDelta

__all__ = ["WorkerAggregator"]

# Maximum number of versions of a model with labels of their own: those with the highest numbers.
MAX_VERSIONS = 10
# Maximum number of models with labels of their own: those that were called first.
MAX_MODELS = 100

_OVER_WORKERS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "mean": fmean,
}
_Labels = tuple[str, ...]


class WorkerAggregator(Collector):
    """Adds up what the workers report; a Collector for prometheus_client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: defaultdict[tuple[str, _Labels], float] = defaultdict(float)
        self._histograms: dict[tuple[str, _Labels], list[float]] = {}
        self._gauges: dict[int, dict[tuple[str, _Labels], float]] = defaultdict(dict)
        self._versions: defaultdict[str, set[int]] = defaultdict(set)  # by model
        # Known series exist from the start: of one that appears with its first count, Prometheus
        # cannot compute a rate.
        self.add(0, [(m.name, k, _zero(m)) for m in METRICS.values() for k in m.known])

    def add(self, worker: int, report: MetricDelta) -> None:
        """Add a report of a worker; its gauges replace those of its last report."""
        gauges = {}
        with self._lock:
            for name, labels, value in report:
                metric = METRICS[name]
                if metric.kind == "gauge":
                    gauges[name, tuple(labels)] = value
                else:
                    self._count(metric, self._bounded(metric, tuple(labels)), value)
            if gauges:
                self._gauges[worker] = gauges

    def drop_gauges(self, worker: int) -> None:
        """Drop the gauges of a worker that has ended; its counts remain."""
        with self._lock:
            self._gauges.pop(worker, None)

    def collect(self) -> Iterator[Family]:
        """Return every metric with its current values."""
        with self._lock:
            values: dict[str, dict[_Labels, Any]] = {name: {} for name in METRICS}
            for series in (self._counters, self._histograms, self._over_workers()):
                for (name, labels), value in series.items():
                    values[name][labels] = value
        values |= live_accuracy(values["mlpserve_reports_total"])
        return (_family(METRICS[name], series) for name, series in values.items())

    def _count(self, metric: Metric, labels: _Labels, value: Any) -> None:
        key = (metric.name, labels)
        if metric.kind == "counter":
            self._counters[key] += value
        else:
            before = self._histograms.get(key, [0.0] * len(value))
            self._histograms[key] = [a + b for a, b in zip(before, value, strict=True)]

    def _over_workers(self) -> dict[tuple[str, _Labels], float]:
        values = defaultdict(list)
        for gauges in self._gauges.values():
            for key, value in gauges.items():
                values[key].append(value)
        return {k: _OVER_WORKERS[METRICS[k[0]].over_workers](v) for k, v in values.items()}

    def _bounded(self, metric: Metric, labels: _Labels) -> _Labels:
        """Return the labels, with "other" for models and versions without a label of their own.

        The versions with labels only rise, and the counts of one that loses its label are added to
        "other": no series decreases, and no count is lost.
        """
        if "version" not in metric.labels:
            return labels
        named = dict(zip(metric.labels, labels, strict=True))
        model, version = named["model"], named["version"]
        if model == OTHER or (model not in self._versions and len(self._versions) >= MAX_MODELS):
            return _folded(metric, labels, "model", "version", "class")
        versions = self._versions[model]
        is_full = len(versions) >= MAX_VERSIONS
        is_older = is_full and version != OTHER and int(version) < min(versions)
        if is_older:  # it would be the one that loses its label, and all series be looked through
            return _folded(metric, labels, "version", "class")
        if version != OTHER and int(version) not in versions:
            versions.add(int(version))
            if len(versions) > MAX_VERSIONS:
                self._fold(model, min(versions))
                versions.remove(min(versions))
        has_label = version != OTHER and int(version) in versions
        return labels if has_label else _folded(metric, labels, "version", "class")

    def _fold(self, model: str, version: int) -> None:
        for series in (self._counters, self._histograms):
            for name, labels in list(series):
                metric = METRICS[name]
                named = dict(zip(metric.labels, labels, strict=True))
                if (named.get("model"), named.get("version")) == (model, str(version)):
                    folded = _folded(metric, labels, "version", "class")
                    self._count(metric, folded, series.pop((name, labels)))


def _folded(metric: Metric, labels: _Labels, *names: str) -> _Labels:
    named = zip(metric.labels, labels, strict=True)
    return tuple(OTHER if name in names else value for name, value in named)


def _zero(metric: Metric) -> Any:
    return 0 if metric.kind == "counter" else [0] * (len(metric.bounds) + 2)


def _family(metric: Metric, series: dict[_Labels, Any]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, (*counts, total) in series.items():
            histogram.add_metric(labels, _buckets(metric, counts), total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _buckets(metric: Metric, counts: Sequence[float]) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counts), strict=True))
