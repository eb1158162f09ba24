"""A challenger beside the champion: what another version makes of a sample of the live rows."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Signature, StoredModel
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.observability.observer import Observer

__all__ = ["LOOK_SECONDS", "Shadow", "compare"]

Float32 = NDArray[np.float32]

# The thread looks at what has come in this often, and is woken by nobody: a live call neither
# waits for it nor has to hand it the processor. Seldom, since a product costs much the same for
# one row as for fifty.
LOOK_SECONDS = 0.5
# Rows of one product: short enough that who waits for the interpreter does not notice.
_ROWS_AT_ONCE = 64
# Between two products.
_PAUSE_SECONDS = 0.002
# Rows waiting; beyond that they are dropped.
_MOST_WAITING = 2048

# Metrics.
INFO = "mlpserve_shadow_info"
ROWS = "mlpserve_shadow_rows_total"
DIFFERENCE = "mlpserve_shadow_difference_total"
DROPPED = "mlpserve_shadow_dropped_rows_total"

log = logging.getLogger(__name__)


class _Sample(NamedTuple):
    shadow: StoredModel
    x: Float32
    probabilities: Float32


class Comparison(NamedTuple):
    """How many rows got the same label, and the sum of the rows' mean absolute differences."""

    rows: int
    agreed: int
    difference: float


def compare(live: Float32, shadow: Float32) -> Comparison:
    """Compare probabilities, (rows, classes) each, of the same rows."""
    agreed = int((live.argmax(axis=1) == shadow.argmax(axis=1)).sum())
    difference = np.abs(live - shadow).mean(axis=1, dtype=np.float64).sum()
    return Comparison(len(live), agreed, float(difference))


class Shadow:
    """Sends at most `rows_per_second` of the live rows through the manager's shadow too.

    `busy` tells whether live calls pile up: then, and when too many rows wait, the sample is
    dropped. Rows that the served version answers are sampled, while the shadow is another one
    with as many inputs and classes.
    """

    def __init__(
        self,
        manager: ModelManager,
        rows_per_second: float,
        busy: Callable[[], bool],
        observer: Observer,
    ) -> None:
        self._manager = manager
        self._rate = rows_per_second
        self._busy = busy
        self._observer = observer
        self._since = time.monotonic()  # from when on rows may be taken
        self._waiting: deque[_Sample] = deque()
        self._waiting_rows = 0
        self._lock = threading.Lock()  # guards the three above, briefly
        self._announced: object = None
        self._judged: tuple[object, bool] = (None, False)  # versions, and whether they are alike
        self._ending = threading.Event()

    def start(self) -> None:
        """Begin to take rows."""
        self._observer.gauge(INFO, self._info)

    def stop(self) -> None:
        """Take no more rows; what still waits is not compared."""
        self._ending.set()

    def offer(self, model: StoredModel, x: Float32, probabilities: Float32) -> None:
        """Take some of these live rows, (rows, inputs) and (rows, classes), if it is time."""
        # Most calls end here: at most a hundred or so a second pay for what follows.
        if (time.monotonic() - self._since) * self._rate < 1:
            return
        shadow = self._manager.shadow
        if shadow is None or model is not self._manager.current or self._ending.is_set():
            return
        pair = (model.manifest.version, shadow.manifest.version)
        if pair != self._judged[0]:
            self._judged = pair, not _unlike(model, shadow)
        if self._judged == (pair, True) and (rows := self._due(len(x))):
            if self._busy():
                self._dropped(rows)
                return
            # A copy: the request that they are a part of may be thousands of times larger.
            self._put(_Sample(shadow, x[:rows].copy(), probabilities[:rows].copy()))

    def _due(self, offered: int) -> int:
        """How many of the rows offered are to be taken, so that no more are in any second."""
        with self._lock:
            now = time.monotonic()
            self._since = max(self._since, now - 1)
            rows = min(int((now - self._since) * self._rate), offered, _ROWS_AT_ONCE)
            self._since += rows / self._rate
            return rows

    def _put(self, sample: _Sample) -> None:
        with self._lock:
            fits = self._waiting_rows + len(sample.x) <= _MOST_WAITING
            if fits:
                self._waiting.append(sample)
                self._waiting_rows += len(sample.x)
        if not fits:
            self._dropped(len(sample.x))

    def _take(self) -> list[_Sample]:
        """As many samples for one shadow as may share a product."""
        taken: list[_Sample] = []
        rows = 0
        with self._lock:
            while self._waiting:
                sample = self._waiting[0]
                rows += len(sample.x)
                if taken and (rows > _ROWS_AT_ONCE or sample.shadow is not taken[0].shadow):
                    break
                taken.append(self._waiting.popleft())
                self._waiting_rows -= len(sample.x)
        return taken

    def look(self) -> None:
        """Compare what waits; called every LOOK_SECONDS by a thread that does nothing else.

        Low in priority by working little and seldom. A lower one with the system would be worse: a
        thread that is not let run may hold the interpreter's lock.
        """
        self._announce()
        self._compare_waiting()

    def _compare_waiting(self) -> None:
        while samples := self._take():
            x = np.concatenate([sample.x for sample in samples])
            if self._busy():
                self._dropped(len(x))
                continue
            live = np.concatenate([sample.probabilities for sample in samples])
            shadow = samples[0].shadow
            self._tell(shadow, compare(live, shadow.predict(x)))
            if self._ending.wait(_PAUSE_SECONDS):
                return

    def _tell(self, shadow: StoredModel, found: Comparison) -> None:
        version = str(shadow.manifest.version)
        self._observer.count(ROWS, version, "agreed", amount=found.agreed)
        self._observer.count(ROWS, version, "differed", amount=found.rows - found.agreed)
        self._observer.count(DIFFERENCE, version, amount=found.difference)

    def _info(self) -> dict[tuple[str, ...], float]:
        shadow = self._manager.shadow
        return {(str(shadow.manifest.version),): 1.0} if shadow else {}

    def _dropped(self, rows: int) -> None:
        self._observer.count(DROPPED, amount=rows)

    def _announce(self) -> None:
        """Say in the log what is compared with what, whenever that has become another pair."""
        live, shadow = self._manager.current, self._manager.shadow
        beside, version = (model and model.manifest.version for model in (live, shadow))
        if (beside, version) == self._announced:
            return
        self._announced = (beside, version)
        reason = _unlike(live, shadow) if live and shadow else "one of the two is not there"
        if reason:
            fields = {"version": version, "beside": beside, "reason": reason}
            log.info("not shadowing", extra=fields)
        else:
            log.info("shadowing", extra={"version": version, "beside": beside})


def _unlike(live: StoredModel, shadow: StoredModel) -> str:
    """Why the same rows cannot go through both; nothing when they can."""
    one, other = live.manifest, shadow.manifest
    if one.version == other.version:
        return "it is the served version"
    differing = (
        field.name
        for field in fields(Signature)
        if getattr(one.signature, field.name) != getattr(other.signature, field.name)
    )
    return next((f"its {name} differs" for name in differing), "")
