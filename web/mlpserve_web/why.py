"""Why answers came out as they did: the output `attributions`, and what the page shows."""

import asyncio
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_client import (
    AsyncClient,
    BatchPrediction,
    Explanation,
    MlpserveError,
    Prediction,
)
from mlpserve_model import Store, StoreError
from mlpserve_web.errors import HttpError

__all__ = ["Explainer", "attributions"]

MAX_ROWS = 256  # explained in one request: each is a call of a model server
_AT_ONCE = 8

UNITS = 6  # shown, of the first hidden layer
_KEPT = 8  # versions whose weights are in memory


async def attributions(
    client: AsyncClient, instances: NDArray[Any], answer: BatchPrediction
) -> NDArray[np.float32]:
    """Return the attributions of the predicted classes, (rows, *input shape).

    Raises:
        HttpError: 400, there are too many rows.

    """
    rows = instances.reshape(len(answer), -1)
    if len(rows) > MAX_ROWS:
        raise HttpError(400, f"attributions of {len(rows)} instances, expected at most {MAX_ROWS}")
    labels, version, model = answer.labels.tolist(), answer.model.version, answer.model.name
    found: list[Explanation] = []
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        calls = [
            client.explain(row, label=label, version=version, model=model)
            for row, label in zip(rows[part], labels[part], strict=True)
        ]
        found += await asyncio.gather(*calls)
    return np.stack([one.attributions for one in found])


class Explainer:
    """Explains answers; without a store it cannot show what the units look for."""

    def __init__(self, store: Store | None) -> None:
        self._first_layer = lru_cache(_KEPT)(partial(_first_layer, store)) if store else None

    async def explain(
        self, client: AsyncClient, instance: NDArray[Any], answer: Prediction
    ) -> dict[str, Any] | None:
        """Return what the page shows, or None where the server does not explain.

        The answer stands without it, so no failure of the explanation is one of the page.
        """
        try:
            found = await client.explain(
                instance, label=answer.label, activations=True, version=answer.model.version
            )
        except MlpserveError:
            return None
        return {
            "attributions": found.attributions.ravel().tolist(),
            "units": await asyncio.to_thread(self._units, found),
        }

    def _units(self, found: Explanation) -> list[dict[str, Any]]:
        """Return the units of the first hidden layer that fired most, with their weights."""
        if not (self._first_layer and found.activations):
            return []
        fired = found.activations[0]
        try:
            weights = self._first_layer(found.model.version, found.model.digest)
        except StoreError:
            return []
        if weights is None or weights.shape != (found.attributions.size, fired.size):
            return []
        order = np.argsort(-np.abs(fired), kind="stable")[:UNITS]
        return [
            {
                "number": int(unit),
                "activation": float(fired[unit]),
                "weights": weights[:, unit].tolist(),
            }
            for unit in order
            if fired[unit]
        ]


def _first_layer(store: Store, version: int, digest: str) -> NDArray[np.float32] | None:
    """Return the first layer's weights, (inputs, units); None if others have this number now."""
    model = store.load(version)
    if model.manifest.digest != digest:
        return None
    weights: NDArray[np.float32] = model.weights[0].w.astype(np.float32, copy=False)
    return weights
