"""Loads versions into memory, keeps some on standby, and holds damaged ones back."""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from mlpserve_model import CorruptVersion, Manifest, StoredModel, StoreError, VersionNotFound
from mlpserve_model.store.reader import StoreReader
from mlpserve_server.observability.observer import Observer

__all__ = ["Loader", "Standby", "VersionRefused"]

# A damaged version is tried again after this time: it may have been restored.
_RETRY_SECONDS = 10.0
# The interval of comparing the versions in memory with the store, also done when an alias moves.
_COMPARE_SECONDS = 10.0

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


class _Failure(NamedTuple):
    reason: str
    manifest: str | None  # the digest of the manifest that it is about, if it could be read
    retry_at: float


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
        self._failures: dict[int, _Failure] = {}
        self._confirmed: dict[int, tuple[Hashable, str]] = {}  # stamps of unchanged manifests
        self._verdicts: dict[tuple[int, Hashable], str] = {}  # a manifest never changes
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
            failure = self._failures.get(version)
            if failure and time.monotonic() < failure.retry_at:
                raise VersionRefused(failure.reason)
            return self._load(version)

    def try_load(self, version: int) -> StoredModel | None:
        """Return the version, or None, with a line in the log, when it cannot be loaded."""
        try:
            return self.load(version)
        except VersionRefused:
            return None  # which `load` has logged
        except StoreError as error:
            # Not held back: on a network mount an alias can be seen before its version, and
            # a volume that cannot be read now may be readable at the next poll.
            self._failed(version, str(error), None, retry_at=0)
            return None

    def failure(self, version: int, manifest: str) -> str:
        """Return why the version with this digest of its manifest was refused, if it was."""
        failure = self._failures.get(version)
        return failure.reason if failure and failure.manifest == manifest else ""

    def refusal(self, version: int) -> str:
        """Return, for callers, why a version was refused at the last attempt; "" if it was not."""
        failure = self._failures.get(version)
        if failure is None:
            return ""
        # Without a manifest the reason is that of the file system, with a path.
        reason = failure.reason if failure.manifest else "it cannot be read"
        return f"cannot answer: version {version}: {reason}"

    def of_last_seen(self) -> "Loader | None":
        """Return a loader of the store's local copy, or None if there is none."""
        kept = self.store.last_seen
        return Loader(kept, on_load=self._on_load) if kept else None

    def _retry_all(self) -> None:
        for version, failure in list(self._failures.items()):
            self._failures[version] = failure._replace(retry_at=0)

    def unreplaced(self, in_use: list[StoredModel], at_once: bool) -> list[StoredModel]:
        """Return the models under whose number the store still has the same manifest.

        A replaced model is removed from standby too. A removed or damaged version is not replaced.
        The store is read for this every _COMPARE_SECONDS. With `at_once` it is read now, since
        something there has changed, and no version is held back any longer.

        Raises:
            StoreError: The store cannot be read.

        """
        if at_once:
            self._retry_all()
        elif time.monotonic() - self._compared_at < _COMPARE_SECONDS:
            return in_use
        for model in self.standby.models():
            if self._is_replaced(model):
                self.standby.drop(model)
        found = [model for model in in_use if not self._is_replaced(model)]
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
            self._failed(version, str(error), digest, time.monotonic() + _RETRY_SECONDS)
            raise VersionRefused(str(error)) from error
        finally:
            self.loading = None
        self._failures.pop(version, None)
        seconds = round(time.monotonic() - started, 4)
        self._observer.count("mlpserve_model_loads_total", "loaded")
        self._observer.observe("mlpserve_model_load_seconds", seconds)
        fields = {"model": self.store.model, "version": version, "seconds": seconds}
        log.info("model loaded", extra=fields)
        return model

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
            self._failed(version, str(error), None, time.monotonic() + _RETRY_SECONDS)
            return None

    def _failed(self, version: int, reason: str, manifest: str | None, retry_at: float) -> None:
        known = self._failures.get(version)
        self._failures[version] = _Failure(reason, manifest, retry_at)
        if known is None or known.reason != reason:
            fields = {"model": self.store.model, "version": version, "reason": reason}
            log.error("version refused", extra=fields)


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
