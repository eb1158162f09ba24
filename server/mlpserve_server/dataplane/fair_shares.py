"""The shares of several models in the calls that may wait, and whose call a request is."""

from collections.abc import Mapping

from mlpserve_server.dataplane.admission import MIN_QUEUE, QueueLimit
from mlpserve_server.dataplane.wire import text_at
from mlpserve_server.lifecycle.models import Models

__all__ = ["INFER_NAME", "SELECTED_NAME", "FairShares", "NamePath"]

# Where a request names its model: the numbers of fields, nested ones.
NamePath = tuple[int, ...]
SELECTED_NAME: NamePath = (2, 3)  # `model.name` in all requests of mlpserve.v1
INFER_NAME: NamePath = (1,)  # `model_name` in ModelInferRequest


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

    def model_of(self, path: NamePath, request: bytes) -> str:
        """Return the name of the served model that a request is for; "" if there is none.

        It is none of what a request names that is not walked to its end: no client sends one.
        """
        name = text_at(request, *path)
        if name == "":
            name = self._models.default
        return name if name and name in self._models.managers else ""

    def admits(self, model: str, waiting: Mapping[str, int]) -> bool:
        """Return True if the waiting calls of a model are fewer than its share; by their models."""
        limit = self._limits.get(model)
        alone = limit.limit if limit else self._maximum if model else MIN_QUEUE
        share = max(MIN_QUEUE, alone // len(waiting.keys() | {model}))
        return waiting.get(model, 0) < share
