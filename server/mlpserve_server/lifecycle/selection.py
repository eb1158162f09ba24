"""From a selection to a model: its number, and the model in memory or loaded."""

from collections.abc import Mapping, Sequence

from mlpserve_model import StoredModel, StoreError, VersionNotFound
from mlpserve_server.errors import ModelNotFound, ModelUnavailable, NotReady
from mlpserve_server.lifecycle.loader import Loader, VersionRefused

__all__ = ["LATEST", "find", "find_before", "load_selected", "of_version", "target", "wanted"]

LATEST = "latest"


def wanted(loader: Loader, selected: str, aliases: Mapping[str, int]) -> int | None:
    """Return the number of an alias, of a number, or of "latest"; None if there is none."""
    if selected == LATEST:
        return next(loader.passed(), None)
    return int(selected) if selected.isdecimal() else aliases.get(selected)


def target(aliases: Mapping[str, int], alias: str) -> int:
    """Return the number that an alias points at; raises ModelNotFound."""
    if alias not in aliases:
        known = ", ".join(sorted(aliases)) or "none yet"
        raise ModelNotFound(f"there is no alias {alias[:63]!r}: known are {known}")
    return aliases[alias]


def of_version(version: int, models: Sequence[StoredModel]) -> StoredModel | None:
    """Return the first of these models that has this number."""
    return next((model for model in models if model.manifest.version == version), None)


def find(loader: Loader, version: int, in_use: Sequence[StoredModel]) -> StoredModel | None:
    """Return the version out of the models in use, or load it; None if that fails."""
    return of_version(version, in_use) or loader.try_load(version)


def find_before(loader: Loader, version: int) -> StoredModel | None:
    """Load the newest version before this one that the gate let pass and that is in order."""
    return next(filter(None, map(loader.try_load, loader.passed(below=version))), None)


def load_selected(loader: Loader, version: int, is_away: bool) -> StoredModel:
    """Load what a caller selected and keep it on standby.

    Args:
        loader: Loads it.
        version: The number.
        is_away: Whether nothing can be said about a version that is not found.

    Raises:
        ModelNotFound: There is no such version.
        ModelUnavailable: It is damaged, or the gate rejected it.
        NotReady: The store cannot be read.

    """
    try:
        model = loader.load(version)
    except VersionNotFound as error:
        if is_away:
            raise NotReady("the store cannot be read at the moment") from error
        raise ModelNotFound(str(error)) from error
    except VersionRefused as error:
        raise ModelUnavailable(f"version {version} cannot answer: {error}") from error
    except StoreError as error:
        raise NotReady("the store cannot be read at the moment") from error
    loader.standby.put(model)
    return model
