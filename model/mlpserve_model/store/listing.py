"""The models of a store, by name."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from mlpserve_model.format.manifest import NAME
from mlpserve_model.store.location import Location, missing_client, parse_location
from mlpserve_model.store.reader import translated

__all__ = ["ModelListing"]


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
