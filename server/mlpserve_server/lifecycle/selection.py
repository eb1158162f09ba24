"""From a selection to a model: its number, and the model in memory or loaded."""

import heapq
import logging
from collections.abc import Collection, Mapping, Sequence

from mlpserve_model import StoredModel, StoreError, VersionNotFound
from mlpserve_server.errors import ModelNotFound, ModelUnavailable, NotReady
from mlpserve_server.lifecycle.loader import Loader, VersionRefused

__all__ = [
    "LATEST",
    "are_selected",
    "find_last_seen",
    "find_served",
    "find_shadow",
    "listed",
    "load_selected",
    "of_version",
    "target",
]

LATEST = "latest"
_MAX_LISTED = 10

log = logging.getLogger(__name__)


def _wanted(loader: Loader, selected: str, aliases: Mapping[str, int]) -> int | None:
    """Return the number of an alias, of a number, or of "latest"; None if there is none."""
    if selected == LATEST:
        return next(loader.passed(), None)
    return int(selected) if selected.isdecimal() else aliases.get(selected)


def target(aliases: Mapping[str, int], alias: str) -> int:
    """Return the number that an alias points at; raises ModelNotFound."""
    if alias not in aliases:
        raise ModelNotFound(f"there is no alias {alias[:63]!r}: known are {listed(aliases)}")
    return aliases[alias]


def listed(names: Collection[str]) -> str:
    """Return the first names for an error, which answers a call and is short."""
    first = ", ".join(heapq.nsmallest(_MAX_LISTED, names)) or "none yet"
    more = len(names) - _MAX_LISTED
    return f"{first} and {more:,} more" if more > 0 else first


def of_version(version: int, models: Sequence[StoredModel]) -> StoredModel | None:
    """Return the first of these models that has this number."""
    return next((model for model in models if model.manifest.version == version), None)


def are_selected(
    chosen: Sequence[tuple[str, StoredModel | None]], aliases: Mapping[str, int]
) -> bool:
    """Return True if each model is the version that the alias beside it points at."""
    return all(
        model is not None and aliases.get(alias) == model.manifest.version
        for alias, model in chosen
    )


def find_served(
    loader: Loader,
    selected: str,
    aliases: Mapping[str, int],
    in_use: Sequence[StoredModel],
    serving: bool,
) -> StoredModel | None:
    """Return what is to be served from now on, None to go on with what is.

    Args:
        loader: Loads it.
        selected: An alias, a number, or "latest".
        aliases: Where aliases point.
        in_use: The models that need no load.
        serving: Whether a version is in service.

    """
    version = _wanted(loader, selected, aliases)
    if version is None:
        return None
    model = _find(loader, version, in_use)
    if model or serving or selected.isdecimal():
        # A server that was started for a number serves that number or nothing.
        return model
    return _find_before(loader, version)


def find_last_seen(loader: Loader, selected: str) -> tuple[Mapping[str, int], StoredModel] | None:
    """Return the aliases and the selected model of a store's local copy, if it has that."""
    try:
        aliases = loader.store.aliases()
        model = find_served(loader, selected, aliases, [], serving=False)
    except StoreError as error:
        reason = {"model": loader.store.model, "reason": str(error)}
        log.error("the cache cannot be read", extra=reason)
        return None
    return None if model is None else (aliases, model)


def find_shadow(
    loader: Loader,
    selected: str,
    aliases: Mapping[str, int],
    in_use: Sequence[StoredModel],
    before: StoredModel | None,
) -> StoredModel | None:
    """Return the shadow; while another one cannot be loaded, the one before stays."""
    version = _wanted(loader, selected, aliases)
    return None if version is None else _find(loader, version, in_use) or before


def _find(loader: Loader, version: int, in_use: Sequence[StoredModel]) -> StoredModel | None:
    """Return the version out of the models in use, or load it; None if that fails."""
    return of_version(version, in_use) or loader.try_load(version)


def _find_before(loader: Loader, version: int) -> StoredModel | None:
    """Load the newest version before this one that the gate let pass and that is in order."""
    return next(filter(None, map(loader.try_load, loader.passed(below=version))), None)


def load_selected(loader: Loader, version: int, unreachable: bool) -> StoredModel:
    """Load what a caller selected and keep it on standby.

    Args:
        loader: Loads it.
        version: The number.
        unreachable: Whether nothing can be said about a version that is not found.

    Raises:
        ModelNotFound: There is no such version.
        ModelUnavailable: It is damaged, or the gate rejected it.
        NotReady: The store cannot be read.

    """
    try:
        model = loader.load(version)
    except VersionNotFound as error:
        if unreachable:
            raise NotReady("the store cannot be read at the moment") from error
        raise ModelNotFound(str(error)) from error
    except VersionRefused as error:
        raise ModelUnavailable(f"version {version} cannot answer: {error}") from error
    except StoreError as error:
        raise NotReady("the store cannot be read at the moment") from error
    loader.standby.put(model)
    return model
