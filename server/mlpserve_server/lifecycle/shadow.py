"""The shadow: another version that computes a sample of the live rows, to compare the two."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Signature, StoredModel
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.lifecycle.sampling import RowRate
from mlpserve_server.observability.observer import Observer

__all__ = ["Shadow", "compare"]

Float32 = NDArray[np.float32]

# Rows of one product, which holds the interpreter's lock only briefly.
_MAX_ROWS_AT_ONCE = 64
# The pause between two products.
_PAUSE_SECONDS = 0.002
# Rows in the queue; further ones are dropped.
_MAX_WAITING = 2048

# Metrics.
INFO = "mlpserve_shadow_info"
ROWS = "mlpserve_shadow_rows_total"
DIFFERENCE = "mlpserve_shadow_difference_total"
DROPPED = "mlpserve_shadow_dropped_rows_total"

log = logging.getLogger(__name__)


_Pair = tuple[StoredModel | None, StoredModel | None]


class _Sample(NamedTuple):
    shadow: StoredModel
    x: Float32
    probabilities: Float32


class Comparison(NamedTuple):
    """The number of rows, of rows with the same label, and the sum of their mean differences."""

    rows: int
    agreed: int
    difference: float


def compare(live: Float32, shadow: Float32) -> Comparison:
    """Compare probabilities, (rows, classes) each, of the same rows.

    Those of the shadow may not be finite, for real inputs that are large: then they differ.
    """
    agreed = live.argmax(axis=1) == shadow.argmax(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.abs(live - shadow).mean(axis=1, dtype=np.float64)
    finite = np.isfinite(difference)
    return Comparison(len(live), int((agreed & finite).sum()), float(difference[finite].sum()))


class Shadow:
    """Sends at most `rows_per_second` of the live rows through their model's shadow as well.

    Rows that a served version answers are sampled while the shadow is another version with the
    same signature. The sample is dropped while `busy()` is true, which means that live calls pile
    up, and while too many rows are in the queue.
    """

    def __init__(
        self,
        models: Models,
        rows_per_second: float,
        busy: Callable[[], bool],
        observer: Observer,
    ) -> None:
        self._models = models
        self._rate = RowRate(rows_per_second, _MAX_ROWS_AT_ONCE)
        self._busy = busy
        self._observer = observer
        self._waiting: deque[_Sample] = deque()
        self._waiting_rows = 0
        self._lock = threading.Lock()  # guards the two above, briefly
        self._logged: dict[str, _Pair] = {}
        # By model: the pair, and whether the two are comparable.
        self._compared: dict[str, tuple[_Pair, bool]] = {}
        self._ending = threading.Event()

    def start(self) -> None:
        """Begin to sample rows."""
        self._observer.gauge(INFO, self._info)

    def stop(self) -> None:
        """Sample no more rows; those in the queue are not compared."""
        self._ending.set()

    def offer(self, model: StoredModel, x: Float32, probabilities: Float32) -> None:
        """Sample some of these live rows, if it is time.

        Args:
            model: What answered them.
            x: The instances, scaled, (rows, inputs).
            probabilities: The answers, (rows, classes).

        """
        # Most calls return here: about 100 calls a second pay for what follows.
        if not self._rate.is_due():
            return
        name = model.manifest.model
        manager = self._models.managers.get(name)
        shadow = manager.shadow if manager else None
        if manager is None or shadow is None or model is not manager.current:
            return
        if self._ending.is_set():
            return
        pair, comparable = self._compared.get(name, ((None, None), False))
        if pair[0] is not model or pair[1] is not shadow:
            comparable = not _obstacle(model, shadow)
            self._compared[name] = (model, shadow), comparable
        if comparable and (rows := self._rate.take(len(x))):
            if self._busy():
                self._dropped(rows)
                return
            # A copy: the request that the rows belong to may be thousands of times larger.
            self._put(_Sample(shadow, x[:rows].copy(), probabilities[:rows].copy()))

    def _put(self, sample: _Sample) -> None:
        with self._lock:
            fits = self._waiting_rows + len(sample.x) <= _MAX_WAITING
            if fits:
                self._waiting.append(sample)
                self._waiting_rows += len(sample.x)
        if not fits:
            self._dropped(len(sample.x))

    def _take(self) -> list[_Sample]:
        """Remove and return samples for one shadow that may share a product."""
        taken: list[_Sample] = []
        rows = 0
        with self._lock:
            while self._waiting:
                sample = self._waiting[0]
                rows += len(sample.x)
                if taken and (rows > _MAX_ROWS_AT_ONCE or sample.shadow is not taken[0].shadow):
                    break
                taken.append(self._waiting.popleft())
                self._waiting_rows -= len(sample.x)
        return taken

    def work_off(self) -> None:
        """Compare what is in the queue; a thread of its own calls this every POLL_SECONDS.

        The thread gives way by doing little at a time. A lower priority in the system would be
        worse: a thread that is not scheduled may hold the interpreter's lock.
        """
        for name, manager in self._models.managers.items():
            self._log_pair(name, (manager.current, manager.shadow))
        self._compare_waiting()

    def _compare_waiting(self) -> None:
        while samples := self._take():
            x = np.concatenate([sample.x for sample in samples])
            if self._busy():
                self._dropped(len(x))
                continue
            live = np.concatenate([sample.probabilities for sample in samples])
            shadow = samples[0].shadow
            with np.errstate(over="ignore", invalid="ignore"):
                answers = shadow.predict(x)
            self._count(shadow, compare(live, answers))
            if self._ending.wait(_PAUSE_SECONDS):
                return

    def _count(self, shadow: StoredModel, found: Comparison) -> None:
        named = shadow.manifest.model, str(shadow.manifest.version)
        self._observer.count(ROWS, *named, "agreed", amount=found.agreed)
        self._observer.count(ROWS, *named, "differed", amount=found.rows - found.agreed)
        if shadow.manifest.network.output_activation != "identity":  # else no probabilities
            self._observer.count(DIFFERENCE, *named, amount=found.difference)

    def _info(self) -> dict[tuple[str, ...], float]:
        shadows = (manager.shadow for manager in self._models.labelled())
        return {(s.manifest.model, str(s.manifest.version)): 1.0 for s in shadows if s}

    def _dropped(self, rows: int) -> None:
        self._observer.count(DROPPED, amount=rows)

    def _log_pair(self, model: str, pair: _Pair) -> None:
        """Log which versions of a model are compared, whenever they change."""
        live, shadow = pair
        logged = self._logged.get(model, (None, None))
        if live is logged[0] and shadow is logged[1]:
            return
        self._logged[model] = pair
        beside, version = (model and model.manifest.version for model in (live, shadow))
        reason = _obstacle(live, shadow) if live and shadow else "one of the two is not there"
        if reason:
            fields = {"model": model, "version": version, "beside": beside, "reason": reason}
            log.info("not shadowing", extra=fields)
        else:
            fields = {"model": model, "version": version, "beside": beside}
            log.info("shadowing", extra=fields)


def _obstacle(live: StoredModel, shadow: StoredModel) -> str:
    """Return why the same rows cannot go through both, "" when they can."""
    one, other = live.manifest, shadow.manifest
    if one.own_digest == other.own_digest:
        return "it is the served version"
    differing = (
        field.name
        for field in fields(Signature)
        if getattr(one.signature, field.name) != getattr(other.signature, field.name)
    )
    return next((f"its {name} differs" for name in differing), "")
