"""The flags that a command prints for other commands."""

import shlex

from mlpserve_model.process.arguments import StoreSettings
from mlpserve_model.store.location import Location

__all__ = ["store_flags"]


def store_flags(model: str, store: Location | None = None) -> str:
    """Return the flags by which other commands find this model; nothing for the defaults."""
    default = StoreSettings()
    flags = "" if store in (None, default.store) else f" --store {shlex.quote(str(store))}"
    return flags if model == default.model else f"{flags} --model {shlex.quote(model)}"
