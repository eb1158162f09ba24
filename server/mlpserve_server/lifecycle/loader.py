"""Loads versions into memory, keeps some on standby, and holds damaged ones back."""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress

from mlpserve_model import CorruptVersion, Manifest, StoredModel, StoreError, VersionNotFound
from mlpserve_model.store.reader import StoreReader
from mlpserve_server.lifecycle.refusals import Refusals
from mlpserve_server.observability.observer import Observer

__all__ = ["Loader", "Standby", "VersionRefused"]

# The interval of comparing the versions in memory with the store, also done when an alias moves.
_COMPARE_SECONDS = 10.0
# Beyond as many verdicts, those of versions that are gone are forgotten.
_MANY_VERDICTS = 1000

log = logging.getLogger(__name__)


class VersionRefused(StoreError):
    """The version cannot answer: its files are damaged, or the gate rejected it."""


class GateRejected(VersionRefused):
    """The gate rejected the version, whose files may be in order."""


class Standby:
    """The `size` most recently used versions, which callers may select without a load."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._models: OrderedDict[int, StoredModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version: int) -> StoredModel | None:
        """Return the version if it is on standby, which counts as a use."""
        with self._lock:
            if version in self._models:
                self._models.move_to_end(version)
            return self._models.get(version)

    def put(self, model: StoredModel) -> None:
        """Keep a version; beyond the size, the least recently used one goes."""
        with self._lock:
            self._models[model.manifest.version] = model
            self._models.move_to_end(model.manifest.version)
            while len(self._models) > self._size:
                self._models.popitem(last=False)

    def drop(self, model: StoredModel) -> None:
        """Remove the version of this number, if it is on standby."""
        with self._lock:
            self._models.pop(model.manifest.version, None)

    def models(self) -> list[StoredModel]:
        """Return the models on standby; this does not count as a use."""
        with self._lock:
            return list(self._models.values())


class Loader:
    """Loads the versions of one store, one at a time, and holds damaged ones back for a while.

    Its methods may be called from any thread. `on_load` is called with the manifest of every
    version before it can answer.
    """

    def __init__(
        self,
        store: StoreReader,
        standby: int = 0,
        observer: Observer | None = None,
        on_load: Callable[[Manifest], object] | None = None,
    ) -> None:
        self.store = store
        self.standby = Standby(standby)
        self.loading: int | None = None
        self._observer = observer or Observer()
        self._on_load = on_load
        self.refusals = Refusals(store.model)
        self._confirmed: dict[int, tuple[Hashable, str]] = {}  # stamps of unchanged manifests
        self._verdicts: dict[tuple[int, Hashable], str] = {}  # so that each manifest is read once
        self._compared_at = -math.inf
        self._lock = threading.Lock()  # one load at a time

    def load(self, version: int) -> StoredModel:
        """Return a version from standby, or read and verify it.

        Raises VersionNotFound; VersionRefused for one that is damaged, that the gate rejected, or
        that was so a moment ago; or StoreError when the store cannot be read.
        """
        with self._lock:
            if model := self.standby.get(version):
                return model
            if reason := self.refusals.held_back(version):
                raise VersionRefused(reason)
            return self._load(version)

    def try_load(self, version: int) -> StoredModel | None:
        """Return the version, or None, with a line in the log, when it cannot be loaded.

        One that is held back is tried again as soon as its files have changed.
        """
        if self.refusals.held_back(version):
            self.refusals.retry_if_changed(version, self._contents_stamp(version))
        try:
            return self.load(version)
        except VersionRefused:
            return None  # which `load` has logged
        except StoreError as error:
            # Not held back: on a network mount an alias can be seen before its version, and
            # a volume that cannot be read now may be readable at the next poll.
            self.refusals.add(version, str(error), hold_back=False)
            return None

    def of_last_seen(self) -> "Loader | None":
        """Return a loader of the store's local copy, or None if there is none."""
        kept = self.store.last_seen
        return Loader(kept, on_load=self._on_load) if kept else None

    def unreplaced(self, in_use: list[StoredModel], at_once: bool) -> list[StoredModel]:
        """Return the models under whose number the store still has the same manifest.

        A replaced model is removed from standby too. A removed or damaged version is not replaced.
        The store is read for this every _COMPARE_SECONDS. With `at_once` it is read now, since
        something there has changed, and no version is held back any longer.

        Raises:
            StoreError: The store cannot be read.

        """
        if at_once:
            self.refusals.retry_all()
        elif time.monotonic() - self._compared_at < _COMPARE_SECONDS:
            return in_use
        for model in self.standby.models():
            if self._is_replaced(model):
                self.standby.drop(model)
        found = [model for model in in_use if not self._is_replaced(model)]
        kept = {model.manifest.version for model in (*found, *self.standby.models())}
        self._confirmed = {v: known for v, known in self._confirmed.items() if v in kept}
        if len(self._verdicts) > _MANY_VERDICTS:
            there = set(self.store.newest())
            self._verdicts = {key: v for key, v in self._verdicts.items() if key in there}
        self._compared_at = time.monotonic()
        return found

    def passed(self, below: float = math.inf) -> Iterator[int]:
        """Give the versions below a number that the gate did not reject, newest first, lazily."""
        for version, stamp in self.store.newest(below):
            if self._verdict(version, stamp) not in (None, "REJECTED"):
                yield version

    def _load(self, version: int) -> StoredModel:
        started = time.monotonic()
        self.loading, digest = version, None
        try:
            manifest = self.store.manifest(version)
            digest = manifest.own_digest
            if manifest.gate.verdict == "REJECTED":
                raise GateRejected(f"the gate rejected it: {'; '.join(manifest.gate.reasons)}")
            model = self.store.load(version)
            if self._on_load:
                self._on_load(model.manifest)
        except StoreError as error:
            self._observer.count("mlpserve_model_loads_total", _result(error))
            if not isinstance(error, CorruptVersion | VersionRefused):
                raise
            # Restored between the load and this stamp, it is tried again after a while only.
            contents = self._contents_stamp(version)
            self.refusals.add(version, str(error), digest, contents=contents)
            raise VersionRefused(str(error)) from error
        finally:
            self.loading = None
        self.refusals.drop(version)
        seconds = round(time.monotonic() - started, 4)
        self._observer.count("mlpserve_model_loads_total", "loaded")
        self._observer.observe("mlpserve_model_load_seconds", seconds)
        fields = {"model": self.store.model, "version": version, "seconds": seconds}
        log.info("model loaded", extra=fields)
        return model

    def _contents_stamp(self, version: int) -> Hashable:
        """Return the stamp of a version's files, None if the store cannot be read."""
        with suppress(StoreError):
            return self.store.contents_stamp(version)
        return None

    def _is_replaced(self, model: StoredModel) -> bool:
        version, digest = model.manifest.version, model.manifest.own_digest
        stamp = self.store.stamp(version)
        if stamp is None or self._confirmed.get(version) == (stamp, digest):
            return False
        try:
            found = self.store.manifest(version).own_digest
        except (VersionNotFound, CorruptVersion):
            return False
        if found == digest:
            self._confirmed[version] = (stamp, digest)
        return found != digest

    def _verdict(self, version: int, stamp: Hashable) -> str | None:
        """Return the gate's verdict, None if the manifest cannot be read."""
        try:
            if (version, stamp) not in self._verdicts:
                self._verdicts[version, stamp] = self.store.manifest(version).gate.verdict
            return self._verdicts[version, stamp]
        except StoreError as error:
            self.refusals.add(version, str(error))
            return None


def _result(error: StoreError) -> str:
    """Return the result of a failed load, for metrics."""
    match error:
        case GateRejected():
            return "rejected"
        case CorruptVersion():
            return "damaged"
        case VersionNotFound():
            return "missing"
        case _:
            return "unreadable"
