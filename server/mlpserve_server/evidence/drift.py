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
from mlpserve_model.evidence.reference import (
    SIGNALS,
    Counts,
    Reference,
    drift,
    read_reference,
    signals,
)
from mlpserve_model.evidence.statistics import class_shares
from mlpserve_model.nn.network import logits
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.sampling import RowRate
from mlpserve_server.observability.observer import Observer
from mlpserve_server.observability.recorder import MAX_CLASS_LENGTH, MAX_CLASSES

__all__ = ["LOOK_SECONDS", "DriftWatch", "Window"]

# At full load a window of 3,000 rows is that of the last three minutes.
ROWS_PER_SECOND = 20.0
_MAX_ROWS_AT_ONCE = 20
# The thread polls, as the shadow's does and for the same reason.
LOOK_SECONDS = 0.5
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
        reference: what the version's holdout looked like.
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
    """Samples rows that the served version answers, and compares them with its reference.

    A version without a reference is not watched.

    Args:
        manager: what serves.
        rows: the rows of the window.
        observer: what reads the gauges.

    """

    def __init__(self, manager: ModelManager, rows: int, observer: Observer) -> None:
        self._manager = manager
        self._rows = rows
        self._observer = observer
        self._rate = RowRate(ROWS_PER_SECOND, _MAX_ROWS_AT_ONCE)
        self._waiting: deque[_Sample] = deque(maxlen=_MAX_WAITING)
        self._watched: StoredModel | None = None  # of which samples are taken
        self._looked_at: StoredModel | None = None  # whose reference was asked for
        self._retry_at = 0.0
        self._window: Window | None = None
        self._compared_at = 0.0
        self._values: Mapping[str, _Gauge] = {}

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
        return self._values.get(gauge, {})

    def offer(self, model: StoredModel, x: _Float32) -> None:
        """Sample some of these live rows, if it is time.

        Args:
            model: What answered them.
            x: The instances, scaled, (rows, inputs).

        """
        if model is self._watched and self._rate.is_due() and (rows := self._rate.take(len(x))):
            # Spread, since callers sort batches; a copy, since requests may be large.
            self._waiting.append(_Sample(model, x[:: len(x) // rows][:rows].copy()))

    def look(self) -> None:
        """Count what waits; a thread of its own calls this every LOOK_SECONDS."""
        self._follow(self._manager.current)
        while self._waiting:
            sample = self._waiting.popleft()
            if self._window and sample.model is self._watched:
                self._window.add(sample.model, sample.x)
        now = time.monotonic()
        if self._window and self._watched and now - self._compared_at >= _COMPARE_SECONDS:
            self._compared_at = now
            self._values = _gauges(self._watched, self._window)

    def _follow(self, served: StoredModel | None) -> None:
        """Begin a window for the served version, if it is another one than before."""
        if served is None or (served is self._looked_at and time.monotonic() < self._retry_at):
            return
        if served is not self._looked_at:
            self._watched = self._window = None
            self._values = {}
        self._looked_at, self._retry_at = served, float("inf")
        version = served.manifest.version
        try:
            reference = read_reference(self._manager.store, served.manifest)
        except (CorruptVersion, VersionNotFound) as error:
            log.error("no drift watched", extra={"version": version, "reason": str(error)})
            return
        except StoreError:  # which the follower of the store logs
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return
        if reference is not None:
            self._window = Window(reference, self._rows)
            self._watched = served
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
