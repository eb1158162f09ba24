"""Models of a server in the test's own process."""

from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models

__all__ = ["models_of"]


def models_of(*managers: ModelManager, default: str | None = None) -> Models:
    """The models of these managers."""
    by_name = {manager.store.model: manager for manager in managers}
    return Models([*by_name], default, by_name.__getitem__, list)
