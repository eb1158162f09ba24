"""The shares of several models in the calls that may wait, and whose call a request is."""

from collections.abc import Callable, Mapping
from typing import Protocol

from mlpserve_server.dataplane.admission import MIN_QUEUE, QueueLimit
from mlpserve_server.dataplane.query import Selection
from mlpserve_server.errors import ServingError
from mlpserve_server.lifecycle.models import Models

__all__ = ["Decode", "FairShares"]


class _Selecting(Protocol):
    @property
    def selection(self) -> Selection: ...


# The decoding of a codec.
Decode = Callable[[bytes], _Selecting]


class FairShares:
    """Bounds the waiting calls of each model while as many calls wait as may in all.

    The models that calls wait for share the time alike, so that a slow model gets fewer places than
    a quick one. A model that is flooded is refused what is beyond its share, and no other model is.
    For any thread.

    Args:
        models: What is served.
        maximum: The number of calls that may wait.
        seconds: How long a call may wait.

    """

    def __init__(self, models: Models, maximum: int, seconds: float) -> None:
        self._models = models
        self._maximum = maximum
        self._seconds = seconds
        self._limits: dict[str, QueueLimit] = {}

    def record(self, model: str, rows: int, cpu_seconds: float) -> None:
        """Record that some rows of a model were computed together in this CPU time."""
        limit = self._limits.get(model)
        if limit is None:
            limit = self._limits[model] = QueueLimit(self._maximum, self._seconds)
        limit.record(rows, cpu_seconds)

    def model_of(self, decode: Decode, request: bytes) -> str:
        """Return the name of the served model that a request is for; "" if there is none."""
        try:
            name = decode(request).selection.name
        except ServingError:
            return ""
        name = name or self._models.default or ""
        return name if name in self._models.managers else ""

    def admits(self, model: str, waiting: Mapping[str, int]) -> bool:
        """Return True if the waiting calls of a model are fewer than its share; by their models."""
        limit = self._limits.get(model)
        alone = limit.limit if limit else self._maximum
        share = max(MIN_QUEUE, alone // len(waiting.keys() | {model}))
        return waiting.get(model, 0) < share
