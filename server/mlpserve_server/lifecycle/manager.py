"""Which version answers: follows the store, and never drops what works for what does not."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlpserve_model import (
    ModelRejected,
    Store,
    StoredModel,
    StoreError,
    VersionNotFound,
)
from mlpserve_server.errors import ModelNotFound, ModelRefused, NotInMemory, NotReady
from mlpserve_server.observability.observer import Observer

__all__ = ["LATEST", "ModelManager"]

LATEST = "latest"
# A damaged version is looked at again after this time: it may have been restored.
_RETRY_SECONDS = 10.0

log = logging.getLogger(__name__)


class _GateRejected(ModelRejected):
    """Its files are in order, but the gate did not let it pass."""


class ModelManager:
    """Keeps the served version in memory, beside some others that callers may select.

    `serve` is an alias, a number, or "latest" for the newest version that the gate let pass;
    so is `shadow`, which is kept in memory too.
    `poll` belongs to one thread; the rest may be called from any. `last_read` is when the store
    could be read last, by time.time.
    """

    def __init__(
        self,
        store: Store,
        serve: str,
        standby: int,
        observer: Observer | None = None,
        shadow: str | None = None,
    ) -> None:
        self.store = store
        self.serve = serve
        self.loading: int | None = None
        self.last_read = 0.0
        self._observer = observer or Observer()
        self._standby_size = standby
        self._current: StoredModel | None = None
        self._shadow_wanted = shadow
        self._shadow: StoredModel | None = None
        self._aliases: Mapping[str, int] = {}
        self._standby: OrderedDict[int, StoredModel] = OrderedDict()
        self._failures: dict[int, tuple[str, float]] = {}  # version: reason, when to try again
        self._verdicts: dict[int, str] = {}  # a published version never changes
        self._store_fault = ""
        self._waiting = False  # whether it was said that there is nothing to serve
        self._mutex = threading.Lock()  # guards _standby and _failures, briefly
        self._load_lock = threading.Lock()  # one load at a time
        kept = store.last_seen
        self._last_seen = ModelManager(kept, serve, standby=0) if kept else None

    @property
    def current(self) -> StoredModel | None:
        """What answers calls that select nothing; None while there is nothing to serve."""
        return self._current

    @property
    def shadow(self) -> StoredModel | None:
        """What is compared with the served one, if there is such a version."""
        return self._shadow

    @property
    def aliases(self) -> Mapping[str, int]:
        """Where the aliases pointed at the last poll."""
        return self._aliases

    @property
    def loaded(self) -> list[int]:
        """The versions in memory, in order."""
        with self._mutex:
            models = [self._current, self._shadow, *self._standby.values()]
        return sorted({model.manifest.version for model in models if model is not None})

    def poll(self) -> bool:
        """Look at the store once; True when another version answers from now on.

        Raises nothing for what can happen to a volume or to a version: whatever it is, the
        version in service stays in service.
        """
        try:
            # An empty store where there was one: the volume is gone, not the aliases.
            aliases = self.store.aliases() or self._aliases
            model = self._next(aliases)
        except StoreError as error:
            self._store_failed(error)
            return self._current is None and self._serve_last_seen()
        self._store_is_back()
        self.last_read = time.time()
        switched = model is not None and self._switch_to(model)
        self._aliases = aliases
        if self._shadow_wanted:
            self._follow_shadow(self._shadow_wanted, aliases)
        if self._current is None and not self._waiting:
            self._waiting = True
            fields = {"reason": self._missing_folder() or self._waiting_for()}
            fields["store"] = str(self.store.root)
            log.info("waiting for a model", extra=fields)
        return switched

    def get(
        self, version: int | None = None, alias: str | None = None, may_load: bool = True
    ) -> StoredModel:
        """The model that answers for this selection; with none, the served one.

        Raises NotReady, ModelNotFound or ModelRefused; and NotInMemory for a version that
        would have to be read from the store, unless `may_load`.
        """
        current = self._current
        if alias is not None:
            version = self._aliases.get(alias)
            if version is None:
                known = ", ".join(sorted(self._aliases)) or "none yet"
                raise ModelNotFound(f"there is no alias {alias[:63]!r}: known are {known}")
        if version is None:
            if current is None:
                raise NotReady(f"no model to serve yet: {self._waiting_for()}")
            return current
        if model := self.in_memory(version):
            return model
        if not may_load:
            raise NotInMemory(f"version {version} is not in memory")
        return self._load_selected(version)

    def failure(self, version: int) -> str | None:
        """Why the version could not be loaded when that was last tried, or None."""
        with self._mutex:
            return self._failures.get(version, (None, 0.0))[0]

    def in_memory(self, version: int) -> StoredModel | None:
        """The version if it can answer at once, whatever has become of the store."""
        for model in (self._current, self._shadow):
            if model is not None and model.manifest.version == version:
                return model
        return self._in_standby(version)

    def _next(self, aliases: Mapping[str, int]) -> StoredModel | None:
        """What is to be served from now on, if that is another version than until now."""
        wanted = self._wanted(self.serve, aliases)
        if wanted is None or (self._current and wanted == self._current.manifest.version):
            return None
        model = self._try_load(wanted)
        if model or self._current or self.serve.isdecimal():
            # Someone who asks for a number gets that number or nothing.
            return model
        # Nothing is served and the wanted version is damaged: one before it is better than none.
        earlier = self._passed([v for v in self.store.versions() if v < wanted])
        return next(filter(None, map(self._try_load, earlier)), None)

    def _follow_shadow(self, selected: str, aliases: Mapping[str, int]) -> None:
        """Have the shadow in memory; while another one cannot be loaded, the old one stays."""
        try:
            wanted = self._wanted(selected, aliases)
        except StoreError:
            return  # the store was readable a moment ago: the next look will tell
        if wanted is None:
            self._shadow = None
        elif self._shadow is None or wanted != self._shadow.manifest.version:
            self._shadow = self.in_memory(wanted) or self._try_load(wanted) or self._shadow

    def _wanted(self, selected: str, aliases: Mapping[str, int]) -> int | None:
        """The number of an alias, of a number, or of "latest"."""
        if selected == LATEST:
            return next(self._passed(self.store.versions()), None)
        return int(selected) if selected.isdecimal() else aliases.get(selected)

    def _passed(self, versions: list[int]) -> Iterator[int]:
        """Those that the gate let pass, newest first."""
        for version in reversed(versions):
            try:
                if version not in self._verdicts:
                    self._verdicts[version] = self.store.manifest(version).gate.verdict
                if self._verdicts[version] != "REJECTED":
                    yield version
            except StoreError as error:
                self._failed(version, str(error))

    def _try_load(self, version: int) -> StoredModel | None:
        if self._held_back(version):
            return None
        try:
            with self._load_lock:
                return self.in_memory(version) or self._load(version)
        except ModelRejected as error:
            self._failed(version, str(error))
        except StoreError as error:
            # Not held back: on a network mount an alias can be seen before its version, and
            # a volume that cannot be read now may be readable at the next look.
            self._failed(version, str(error), hold_back=False)
        return None

    def _load(self, version: int) -> StoredModel:
        started = time.monotonic()
        self.loading = version
        try:
            model = self._read(version)
        except StoreError as error:
            self._observer.count("mlpserve_model_loads_total", _result(error))
            raise
        finally:
            self.loading = None
        with self._mutex:
            self._failures.pop(version, None)
        seconds = round(time.monotonic() - started, 4)
        self._observer.count("mlpserve_model_loads_total", "loaded")
        self._observer.observe("mlpserve_model_load_seconds", seconds)
        log.info("model loaded", extra={"version": version, "seconds": seconds})
        return model

    def _read(self, version: int) -> StoredModel:
        gate = self.store.manifest(version).gate
        if gate.verdict == "REJECTED":
            raise _GateRejected(f"the gate rejected it: {'; '.join(gate.reasons)}")
        return self.store.load(version)

    def _load_selected(self, version: int) -> StoredModel:
        """Load what a caller selected and keep it on standby."""
        with self._load_lock:
            if model := self._in_standby(version):
                return model
            if reason := self._held_back(version):
                raise ModelRefused(f"version {version} cannot answer: {reason}")
            try:
                model = self._load(version)
            except VersionNotFound as error:
                raise ModelNotFound(str(error)) from error
            except ModelRejected as error:
                self._failed(version, str(error))
                raise ModelRefused(f"version {version} cannot answer: {error}") from error
            except StoreError as error:
                raise NotReady("the store cannot be read at the moment") from error
            self._put_on_standby(model)
            return model

    def _held_back(self, version: int) -> str:
        """Why the version is not tried again just yet, or nothing."""
        with self._mutex:
            reason, again = self._failures.get(version, ("", 0.0))
        return reason if time.monotonic() < again else ""

    def _switch_to(self, model: StoredModel) -> bool:
        previous = self._current
        self._current = model  # one assignment: a call sees the old one or the new one, whole
        with self._mutex:
            self._standby.pop(model.manifest.version, None)
        if previous is not None:
            self._put_on_standby(previous)
        manifest = model.manifest
        fields: dict[str, object] = {"model": manifest.model, "version": manifest.version}
        fields["digest"] = manifest.digest
        if previous is not None:
            fields["previous"] = previous.manifest.version
        log.info("serving", extra=fields)
        return True

    def _in_standby(self, version: int) -> StoredModel | None:
        with self._mutex:
            if version in self._standby:
                self._standby.move_to_end(version)
            return self._standby.get(version)

    def _put_on_standby(self, model: StoredModel) -> None:
        with self._mutex:
            self._standby[model.manifest.version] = model
            while len(self._standby) > self._standby_size:
                self._standby.popitem(last=False)

    def _failed(self, version: int, reason: str, hold_back: bool = True) -> None:
        with self._mutex:
            known = self._failures.get(version, ("", 0.0))[0]
            again = time.monotonic() + (_RETRY_SECONDS if hold_back else 0)
            self._failures[version] = (reason, again)
        if reason != known:
            log.error("version refused", extra={"version": version, "reason": reason})

    def _serve_last_seen(self) -> bool:
        """Serve what is kept of a store that cannot be read; False when that is nothing."""
        if self._last_seen is None or not self._last_seen.poll():
            return False
        model = self._last_seen.current
        assert model is not None  # poll has just said so
        self._aliases = self._last_seen.aliases
        fields = {"version": model.manifest.version, "store": str(self.store.root)}
        log.warning("serving what was last seen of the store", extra=fields)
        return self._switch_to(model)

    def _store_failed(self, error: StoreError) -> None:
        if str(error) != self._store_fault:  # once, not every second
            self._store_fault = str(error)
            log.error("the store cannot be read", extra={"reason": self._store_fault})

    def _store_is_back(self) -> None:
        if self._store_fault:
            self._store_fault = ""
            log.info("the store can be read again")

    def _missing_folder(self) -> str | None:
        root = self.store.root
        missing = isinstance(root, Path) and not root.is_dir()
        return f"there is no folder {root} yet, or its name is wrong" if missing else None

    def _waiting_for(self) -> str:
        # For callers too: the log has the fault itself, and the folder.
        missing = f"{self.serve} of {self.store.model} is not there"
        return "the store cannot be read" if self._store_fault else missing


def _result(error: StoreError) -> str:
    """What became of a load, for metrics."""
    match error:
        case _GateRejected():
            return "rejected"
        case ModelRejected():
            return "damaged"
        case VersionNotFound():
            return "missing"
        case _:
            return "unreadable"
