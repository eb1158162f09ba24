"""Models of a server in the test's own process."""

from collections.abc import Callable
from pathlib import Path

from mlpserve_model import Store
from mlpserve_model.store.listing import ModelListing
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from tests.support.waiting import eventually

__all__ = ["models_following", "models_of", "polled"]


def models_of(*managers: ModelManager, default: str | None = None) -> Models:
    """The models of these managers."""
    by_name = {manager.store.model: manager for manager in managers}
    return Models([*by_name], default, by_name.__getitem__, list)


def models_following(root: Path, *patterns: str) -> Models:
    """The models below a folder that match; none is polled yet."""

    def make(name: str) -> ModelManager:
        return ModelManager(Loader(Store(root, name)), "champion")

    return Models(patterns, None, make, ModelListing(root).names)


def polled(models: Models, until: Callable[[], bool]) -> None:
    """Poll until something is so."""

    def poll() -> bool:
        models.poll()
        return until()

    eventually(poll)
