"""The stamps of models: what changes when their aliases or manifests do.

Of an object store one listing gives those of all models, instead of a request a model.
"""

import os
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from mlpserve_model.format.errors import StoreError
from mlpserve_model.format.manifest import MANIFEST_FILE, NAME
from mlpserve_model.format.records import ALIASES_FILE
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.location import Bucket, Location, missing_client
from mlpserve_model.store.reader import StoreReader, translated

__all__ = ["StampListing", "StampReader"]

# Objects in the answer to one request.
_PAGE = 1000
# Refreshes without a listing after one that cost more requests than there are models.
_SKIPPED = 60
# The longest time between two readings of the aliases of a model one by one: a file may change
# within the resolution of its time.
_READ_SECONDS = 5.0


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
        self.failed = False  # at the last refresh

    @property
    def is_known(self) -> bool:
        """Whether the last refresh has listed the store."""
        return self._stamps is not None

    def refresh(self) -> None:
        """List the store, unless that costs too much; without an answer there are no stamps."""
        self._stamps, self.failed = None, False
        if self._to_skip:
            self._to_skip -= 1
            return
        try:
            with translated(f"cannot list {self._root}"):
                entries = self._objects.list()
        except StoreError:
            self.failed = True
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


class _Seen(NamedTuple):
    """What was read of a model, and when; without a stamp it could not be read."""

    store: StoreReader
    read_at: float = 0.0
    file: Hashable = None
    aliases: Mapping[str, int] | None = None
    stamp: Hashable = None


class StampReader:
    """Reads the stamps of models one by one: what their aliases say, and the manifests of those.

    On a volume this is one `stat` a model, and a reading of the file when that shows a change, and
    every few seconds.
    """

    def __init__(self, root: Location) -> None:
        self._root = root
        self._seen: dict[str, _Seen] = {}

    def read(self, models: Iterable[str]) -> dict[str, Hashable]:
        """Return the stamp of each model; None if it cannot be read, or has no aliases."""
        self._seen = {model: self._refreshed(model) for model in models}
        return {model: seen.stamp for model, seen in self._seen.items()}

    def _refreshed(self, model: str) -> _Seen:
        known = self._seen.get(model) or _Seen(StoreReader(self._root, model))
        try:
            return _read(known, time.monotonic())
        except StoreError:
            return _Seen(known.store)


def _read(known: _Seen, now: float) -> _Seen:
    """Return what is there now; raises StoreError."""
    store, file = known.store, known.store.aliases_stamp()
    is_recent = known.stamp is not None and now - known.read_at < _READ_SECONDS
    if is_recent and file is not None and file == known.file:
        return known
    aliases = store.aliases()
    if is_recent and file is None and aliases == known.aliases:
        return known  # in an object store the manifests would cost further requests
    manifests = [(version, store.stamp(version)) for version in sorted({*aliases.values()})]
    stamp = (tuple(sorted(aliases.items())), *manifests) if aliases else None
    return _Seen(store, now, file, aliases, stamp)
