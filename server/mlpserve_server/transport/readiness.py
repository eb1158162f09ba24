"""Readiness: what health says of the server and of each of its models."""

import threading
from collections.abc import Iterable

from mlpserve_server.lifecycle.models import Models
from mlpserve_server.transport.health import NOT_SERVING, SERVING, Health
from mlpserve_server.transport.services import readiness_of

__all__ = ["Readiness"]


class Readiness:
    """Keeps health in step with the models that can answer; for any thread.

    Args:
        models: what answers.
        health: what callers ask.

    Attributes:
        ready: whether the server as a whole is ready for predictions.

    """

    def __init__(self, models: Models, health: Health) -> None:
        self._models = models
        self._health = health
        self._ended = False
        self._lock = threading.Lock()
        self.ready = False
        self.update(models.managers)

    def update(self, names: Iterable[str]) -> None:
        """Have health say what is true of the server and of these models, which are in place."""
        with self._lock:  # a draining server never becomes ready again
            can_serve = not self._ended
            self.ready = can_serve and self._models.ready
            self._report(None, self.ready)
            for name in names:
                if manager := self._models.managers.get(name):
                    self._report(name, can_serve and manager.current is not None)
                else:
                    self._health.remove(readiness_of(name))

    def end(self) -> None:
        """Become not ready for good: the server drains, or can no longer follow its files."""
        self._ended = True
        self.update(self._models.managers)

    def _report(self, model: str | None, ready: bool) -> None:
        self._health.set(readiness_of(model), SERVING if ready else NOT_SERVING)
