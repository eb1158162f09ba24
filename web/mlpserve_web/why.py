"""Why the page's answer came out as it did: a heat map, and the hidden units that fired most."""

import asyncio
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_client import AsyncClient, Explanation, MlpserveError, Prediction
from mlpserve_model import Store, StoreError

__all__ = ["Explainer"]

UNITS = 6  # shown, of the first hidden layer
_KEPT = 8  # versions whose weights are in memory


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
            "score": found.score,
            "baseline_score": found.baseline_score,
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
