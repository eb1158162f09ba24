"""Drift without labels: a sample of the live rows, compared with the version's holdout."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import CorruptVersion, StoredModel, StoreError, VersionNotFound
from mlpserve_model.nn.network import logits
from mlpserve_model.store.evidence.drift_tests import class_shares
from mlpserve_model.store.evidence.reference import (
    SIGNALS,
    Counts,
    Reference,
    drift,
    read_reference,
    signals,
)
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.lifecycle.sampling import RowRate
from mlpserve_server.observability.observer import Observer
from mlpserve_server.observability.recorder import MAX_CLASS_LENGTH, MAX_CLASSES

__all__ = ["DriftWatch", "Window"]

# At full load a window of 3,000 rows is that of the last three minutes.
ROWS_PER_SECOND = 20.0
_MAX_ROWS_AT_ONCE = 20
# Tests are computed this often, and only on as many rows: with fewer, bins are empty by chance.
_COMPARE_SECONDS = 5.0
_MIN_ROWS = 100
_RETRY_SECONDS = 30.0
# Samples that wait; further ones are dropped.
_MAX_WAITING = 256

_Float32 = NDArray[np.float32]
_Gauge = dict[tuple[str, ...], float]

log = logging.getLogger(__name__)


class _Sample(NamedTuple):
    model: StoredModel
    x: _Float32


class Window:
    """Counts of the last rows, in the bins of a reference.

    Args:
        reference: the counts of the version's holdout.
        rows: how many rows are kept, to within one sample.

    """

    def __init__(self, reference: Reference, rows: int) -> None:
        self.reference = reference
        self._maximum = rows
        self._samples: deque[tuple[int, Counts]] = deque()
        self.rows = 0
        self.counts = Counts()

    def add(self, model: StoredModel, x: _Float32) -> None:
        """Count some rows, (rows, inputs), and drop the oldest beyond the maximum."""
        z = logits(model.manifest.network, model.weights, x)
        found = self.reference.count(signals(x, z, model.predict(x)))
        self._samples.append((len(x), found))
        self.counts = _sum(self.counts, found) if self.rows else found
        self.rows += len(x)
        while self.rows - self._samples[0][0] >= self._maximum:
            rows, oldest = self._samples.popleft()
            self.rows -= rows
            self.counts = _sum(self.counts, oldest, sign=-1)


class DriftWatch:
    """Samples rows that served versions answer, and compares them with their references.

    A version without a reference is not watched.

    Args:
        models: what serves.
        rows: the rows of a version's window.
        observer: what reads the gauges.

    """

    def __init__(self, models: Models, rows: int, observer: Observer) -> None:
        self._models = models
        self._rows = rows
        self._observer = observer
        self._rate = RowRate(ROWS_PER_SECOND, _MAX_ROWS_AT_ONCE)
        self._waiting: deque[_Sample] = deque(maxlen=_MAX_WAITING)
        # By model. Replaced as a whole: calls read it without a lock.
        self._watches: Mapping[str, _ModelDrift] = {}

    def start(self) -> None:
        """Show the gauges."""
        for name in (
            "mlpserve_drift_rows",
            "mlpserve_drift_p_value",
            "mlpserve_drift_psi",
            "mlpserve_drift_psi_threshold",
            "mlpserve_drift_class_share",
            "mlpserve_drift_class_share_expected",
        ):
            self._observer.gauge(name, partial(self._value, name))

    def _value(self, gauge: str) -> _Gauge:
        return {
            (model, *labels): value
            for model, watch in self._watches.items()
            for labels, value in watch.values.get(gauge, {}).items()
        }

    def offer(self, model: StoredModel, x: _Float32) -> None:
        """Sample some of these live rows, if it is time.

        Args:
            model: What answered them.
            x: The instances, scaled, (rows, inputs).

        """
        if not self._rate.is_due():
            return
        watch = self._watches.get(model.manifest.model)
        if watch and model is watch.watched and (rows := self._rate.take(len(x))):
            # Spread, since callers sort batches; a copy, since requests may be large.
            self._waiting.append(_Sample(model, x[:: len(x) // rows][:rows].copy()))

    def work_off(self) -> None:
        """Count what waits; a thread of its own calls this every POLL_SECONDS."""
        managers = {manager.store.model: manager for manager in self._models.labelled()}
        if managers.keys() != self._watches.keys():
            self._watches = {
                name: self._watches.get(name) or _ModelDrift(manager, self._rows)
                for name, manager in managers.items()
            }
        for watch in self._watches.values():
            watch.follow()
        while self._waiting:
            sample = self._waiting.popleft()
            if found := self._watches.get(sample.model.manifest.model):
                found.add(sample)
        for watch in self._watches.values():
            watch.compare()


class _ModelDrift:
    """The drift of one model: of the version that is served.

    Attributes:
        watched: The version of which samples are taken, None if there is none.
        values: The values of every gauge, by the labels after the model's.

    """

    def __init__(self, manager: ModelManager, rows: int) -> None:
        self._manager = manager
        self._rows = rows
        self.watched: StoredModel | None = None
        self.values: Mapping[str, _Gauge] = {}
        self._opened: StoredModel | None = None  # whose reference was read
        self._retry_at = 0.0
        self._window: Window | None = None
        self._compared_at = 0.0

    def add(self, sample: _Sample) -> None:
        """Count the rows of a sample of the watched version."""
        if self._window and sample.model is self.watched:
            self._window.add(sample.model, sample.x)

    def compare(self) -> None:
        """Renew the values, if it is time."""
        now = time.monotonic()
        if self._window and self.watched and now - self._compared_at >= _COMPARE_SECONDS:
            self._compared_at = now
            self.values = _gauges(self.watched, self._window)

    def follow(self) -> None:
        """Begin a window for the served version, if it is another one than before."""
        served = self._manager.current
        if served is None or (served is self._opened and time.monotonic() < self._retry_at):
            return
        if served is not self._opened:
            self.watched = self._window = None
            self.values = {}
        self._opened, self._retry_at = served, float("inf")
        model, version = served.manifest.model, served.manifest.version
        try:
            reference = read_reference(self._manager.store, served.manifest)
        except (CorruptVersion, VersionNotFound) as error:
            fields = {"model": model, "version": version, "reason": str(error)}
            log.error("no drift watched", extra=fields)
            return
        except StoreError:  # which the follower of the store logs
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return
        if reference is not None:
            self._window = Window(reference, self._rows)
            self.watched = served
            self._compared_at = 0.0


def _gauges(model: StoredModel, window: Window) -> Mapping[str, _Gauge]:
    """Return the values of every gauge by its labels."""
    version, reference = str(model.manifest.version), window.reference
    gauges: dict[str, _Gauge] = {"mlpserve_drift_rows": {(version,): window.rows}}
    if window.rows < _MIN_ROWS:
        return gauges
    found = drift(reference, window.counts)
    for name, attribute in (
        ("mlpserve_drift_p_value", "p"),
        ("mlpserve_drift_psi", "psi"),
        ("mlpserve_drift_psi_threshold", "psi_threshold"),
    ):
        gauges[name] = {(version, s): getattr(d, attribute) for s, d in found.items()}
    if reference.confusion is not None:
        names = model.manifest.signature.class_names[:MAX_CLASSES]
        shares = class_shares(reference.confusion, list(window.counts.predicted))
        expected = np.array(reference.confusion).sum(axis=1) / reference.rows
        for name, values in (
            ("mlpserve_drift_class_share", shares),
            ("mlpserve_drift_class_share_expected", expected),
        ):
            pairs = zip(names, values.tolist(), strict=False)
            gauges[name] = {(version, each[:MAX_CLASS_LENGTH]): share for each, share in pairs}
    return gauges


def _sum(one: Counts, other: Counts, sign: int = 1) -> Counts:
    return Counts(
        *(np.asarray(getattr(one, s)) + sign * np.asarray(getattr(other, s)) for s in SIGNALS)
    )
