"""Rows through a model: admitted, some in each step, and sampled for who compares answers."""

import time
from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np

from mlpserve_model import Manifest, Network, StoredModel
from mlpserve_server.dataplane import explanations, tensors
from mlpserve_server.dataplane.admission import RowLimiter
from mlpserve_server.dataplane.fair_shares import FairShares
from mlpserve_server.dataplane.query import Computed, Float32, Query
from mlpserve_server.evidence.drift import DriftWatch
from mlpserve_server.lifecycle.shadow import Shadow
from mlpserve_server.observability.observer import Observer

__all__ = ["CHUNK_ROWS", "Inference", "joined", "rows_at_once"]

# Rows of one matrix product: small enough for single calls to get their turn in between and
# for an abandoned batch to end soon, large enough that cutting it up costs nothing.
CHUNK_ROWS = 512
# A large network takes fewer at once, down to these: 512 rows of 784-4096-4096-10 would stop all
# other calls for half a second. The bound is on rows times parameters.
_MIN_CHUNK_ROWS, _MAX_CHUNK_WORK = 32, 1 << 26
# Explaining a row costs about four times as much as classifying it.
_EXPLAINED = 4

Part = TypeVar("Part")


class Inference:
    """Runs rows through models; for any thread.

    Args:
        max_rows: rows of batches in flight; others are refused with Overloaded.
        observer: what predictions are reported to.
        shadow: what a sample of the rows goes to, to compare another version; None for nothing.
        drift: what a sample of the rows goes to, to compare them with the holdout; None for
            nothing.
        shares: what the time of each model is recorded with; None for one model.

    """

    def __init__(
        self,
        max_rows: int,
        observer: Observer | None = None,
        shadow: Shadow | None = None,
        drift: DriftWatch | None = None,
        shares: FairShares | None = None,
    ) -> None:
        self._rows = RowLimiter(max_rows)
        self._observer = observer or Observer()
        self._shadow = shadow
        self._drift = drift
        self._shares = shares

    def compute(self, model: StoredModel, field: str, explains: bool, x: Float32) -> Computed:
        """Return the answers to scaled rows `x` (rows, inputs), with attributions if wanted.

        Raises NotFinite, of the field; then nobody is told of the rows.
        """
        probabilities = self._predicted(model, x, field)
        why = explanations.predicted(model, x, field) if explains else None
        self._observer.predicted(model.manifest, probabilities)
        if self._drift:
            self._drift.offer(model, x)
        if self._shadow:
            self._shadow.offer(model, x, probabilities)
        return Computed(probabilities, why)

    def _predicted(self, model: StoredModel, x: Float32, field: str) -> Float32:
        if model.manifest.signature.input_kind != "real":
            return self._timed(model, x)
        with np.errstate(over="ignore", invalid="ignore"):  # of finite numbers, but large ones
            probabilities = self._timed(model, x)
        tensors.check_finite(field, probabilities)
        return probabilities

    def _timed(self, model: StoredModel, x: Float32) -> Float32:
        if self._shares is None:
            return model.predict(x)
        began = time.thread_time()
        probabilities = model.predict(x)
        self._shares.record(model.manifest.model, len(x), time.thread_time() - began)
        return probabilities

    def in_chunks(
        self, field: str, query: Query, manifest: Manifest, compute: Callable[[Float32], Part]
    ) -> Generator[str, None, list[Part]]:
        """Admit a checked query and compute its scaled rows, some in each step.

        Each step yields the name of the model.
        """
        rows, data = tensors.row_count(query, manifest), memoryview(query.data)
        chunk_rows = rows_at_once(manifest.network) // (_EXPLAINED if query.explains else 1)
        chunk_bytes = len(data) // rows * chunk_rows
        parts = []
        with self._rows.admitted(manifest.model, rows), self._observer.rows(rows):
            for chunk in range(-(-rows // chunk_rows)):
                yield manifest.model
                values = data[chunk * chunk_bytes : (chunk + 1) * chunk_bytes]
                first = chunk * chunk_rows
                parts.append(compute(tensors.scaled(values, query.dtype, manifest, field, first)))
        return parts


def rows_at_once(network: Network) -> int:
    """Return the rows of one matrix product of a batch."""
    rows = _MAX_CHUNK_WORK // network.parameters
    return min(CHUNK_ROWS, max(_MIN_CHUNK_ROWS, rows))


def joined(parts: list[Computed]) -> Computed:
    """Return the parts as one."""
    probabilities = np.concatenate([part.probabilities for part in parts])
    why = [part.attributions for part in parts if part.attributions is not None]
    return Computed(probabilities, np.concatenate(why) if why else None)
