"""The stamps of every model in an object store, by one listing instead of a request a model."""

import os
from collections import defaultdict
from collections.abc import Hashable, Mapping

from mlpserve_model.format.errors import StoreError
from mlpserve_model.format.manifest import MANIFEST_FILE, NAME
from mlpserve_model.format.records import ALIASES_FILE
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.location import Bucket, missing_client
from mlpserve_model.store.reader import translated

__all__ = ["StampListing"]

# Objects in the answer to one request.
_PAGE = 1000
# Refreshes without a listing after one that cost more requests than there are models.
_SKIPPED = 60


class StampListing:
    """Lists an object store once for all of its models.

    A listing takes a request for every thousand objects. While that is more than one for each
    model, there are no stamps, and every model is asked by itself.
    """

    def __init__(self, root: Bucket) -> None:
        try:
            from mlpserve_model.store.object_client import open_objects
        except ModuleNotFoundError as error:
            raise missing_client(root, error) from error
        self._root = root
        self._objects = open_objects(root, "", os.environ)
        self._stamps: Mapping[str, Hashable] | None = None
        self._to_skip = 0

    def refresh(self) -> None:
        """List the store, unless that costs too much; without an answer there are no stamps."""
        self._stamps = None
        if self._to_skip:
            self._to_skip -= 1
            return
        try:
            with translated(f"cannot list {self._root}"):
                entries = self._objects.list()
        except StoreError:
            return
        found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for entry in entries:
            model, _, name = entry.name.partition("/")
            own = found[model]
            if name == ALIASES_FILE or name.endswith(f"/{MANIFEST_FILE}"):
                own.append((name, entry.tag))
        if len(entries) > _PAGE * max(1, len(found)):
            self._to_skip = _SKIPPED
        self._stamps = {model: tuple(own) for model, own in found.items() if NAME.fullmatch(model)}

    def of(self, model: str) -> Hashable:
        """Return what changes when the aliases or a manifest of a model do; None if not known."""
        return (self._stamps or {}).get(model)

    def names(self) -> list[str]:
        """Return the names of the models, sorted; raises StoreError."""
        return ModelListing(self._root).names() if self._stamps is None else sorted(self._stamps)
