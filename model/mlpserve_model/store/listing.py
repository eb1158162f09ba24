"""The models of a store, by name."""

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from mlpserve_model.format.errors import StoreError
from mlpserve_model.format.manifest import NAME
from mlpserve_model.store.location import Location, missing_client, parse_location
from mlpserve_model.store.reader import StoreReader, translated

__all__ = ["ModelListing", "other_models"]

_MAX_NAMED = 10


class ModelListing:
    """Lists the models of a store, a folder or a place in an object store.

    Raises:
        StoreError: The address cannot be one, or the client of object stores is not installed.

    """

    def __init__(self, root: Location | str) -> None:
        self.root = parse_location(root)
        self._folders = _folders_of(self.root)

    def names(self) -> list[str]:
        """Return the names, sorted: those of all folders that can be a model's.

        Raises:
            StoreError: The store cannot be read, or there is no such folder.

        """
        with translated(f"cannot list {self.root}"):
            return sorted(name for name in self._folders() if NAME.fullmatch(name))


def other_models(root: Location, model: str) -> str:
    """Return the end of a message about a model without versions: which models the store has.

    Empty if the store has versions of this model or of none, or cannot be read.
    """
    try:
        if _has_versions(root, model):
            return ""
        some = ModelListing(root).names()[: 2 * _MAX_NAMED]
        names = [name for name in some if _has_versions(root, name)]
    except StoreError:
        return ""
    near = difflib.get_close_matches(model, names, n=1)
    hint = f"; did you mean --model {near[0]}?" if near else ""
    more = " and others" if len(names) > _MAX_NAMED else ""
    return f": the store has {', '.join(names[:_MAX_NAMED])}{more}{hint}" if names else ""


def _has_versions(root: Location, model: str) -> bool:
    return next(iter(StoreReader(root, model).newest()), None) is not None


def _folders_of(root: Location) -> Callable[[], Iterable[str]]:
    if isinstance(root, Path):
        return lambda: _folders(root)
    # Imported here: a store on a volume needs no client of object stores.
    try:
        from mlpserve_model.store.object_client import open_objects
    except ModuleNotFoundError as error:
        raise missing_client(root, error) from error
    return open_objects(root, "", os.environ).folders


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
