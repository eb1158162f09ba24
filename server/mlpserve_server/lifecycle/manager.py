"""Which version answers: follows the store, and never drops what works for what does not."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mlpserve_model import CorruptVersion, Manifest, Store, StoredModel, StoreError, VersionNotFound
from mlpserve_server.errors import ModelNotFound, ModelUnavailable, NotInMemory, NotReady
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.observability.observer import Observer

__all__ = ["LATEST", "ModelManager"]

LATEST = "latest"
# So often, and whenever an alias moves, the versions in memory are compared with the store.
_RECHECK_SECONDS = 10.0

log = logging.getLogger(__name__)


class ModelManager:
    """Keeps the served version in memory, beside some others that callers may select.

    `serve` is an alias, a number, or "latest" for the newest version that the gate let pass;
    so is `shadow`, which is kept in memory too.
    `poll` belongs to one thread; the rest may be called from any. `last_read` is when the store
    could be read last, by time.time. `current` answers calls that select nothing, None while
    there is nothing to serve; `shadow` is compared with it, if there is such a version;
    `aliases` are those of the last poll.
    """

    def __init__(
        self,
        store: Store,
        serve: str,
        standby: int,
        observer: Observer | None = None,
        shadow: str | None = None,
        on_load: Callable[[Manifest], object] | None = None,
    ) -> None:
        self.store = store
        self.serve = serve
        self.last_read = 0.0
        self.current: StoredModel | None = None
        self.shadow: StoredModel | None = None
        self.aliases: Mapping[str, int] = {}
        self.loader = Loader(store, standby, observer, on_load)
        self._last_seen = Loader(store.last_seen, on_load=on_load) if store.last_seen else None
        self._shadow_wanted = shadow
        self._state = _StoreState(store)
        self._rechecked = 0.0

    @property
    def loaded(self) -> list[int]:
        """The versions in memory, in order."""
        return sorted({model.manifest.version for model in self._in_memory()})

    def poll(self) -> bool:
        """Look at the store once; return True when another version answers from now on.

        Raises nothing for what can happen to a volume or to a version: whatever it is, the
        version in service stays in service.
        """
        try:
            aliases = self._read_aliases()
            fresh = self._unreplaced(aliases)
            model = self._find_served(self.loader, aliases, fresh)
        except StoreError as error:
            self._state.failed(error)
            return self.current is None and self._serve_last_seen()
        self._state.is_back()
        self.last_read = time.time()
        switched = model is not None and self._switch_to(model)
        self.aliases = aliases
        if self._shadow_wanted:
            with suppress(StoreError):  # it was readable a moment ago: the next poll will tell
                self.shadow = self._find_shadow(self._shadow_wanted, aliases, fresh)
        if self.current is None:
            self._state.is_waiting(self._waiting_for())
        return switched

    def get(
        self, version: int | None = None, alias: str | None = None, may_load: bool = True
    ) -> StoredModel:
        """Return the model that answers for this selection; with none, the served one.

        Raises NotReady, ModelNotFound or ModelUnavailable; and NotInMemory for a version that
        would have to be read from the store, unless `may_load`.
        """
        current = self.current
        if alias is not None:
            version = self.aliases.get(alias)
            if version is None:
                known = ", ".join(sorted(self.aliases)) or "none yet"
                raise ModelNotFound(f"there is no alias {alias[:63]!r}: known are {known}")
        if version is None:
            if current is None:
                raise NotReady(f"no model to serve yet: {self._waiting_for()}")
            return current
        if model := _of_version(version, self._in_use()) or self.loader.standby.get(version):
            return model
        if not may_load:
            raise NotInMemory(f"version {version} is not in memory")
        return self._load_selected(version)

    def in_memory(self, version: int) -> StoredModel | None:
        """Return the version if it can answer at once, whatever has become of the store."""
        return _of_version(version, self._in_memory())

    def store_is_away(self) -> bool:
        """Return True if there is nothing in the store's place, or was not at the last poll.

        An empty store is not away. Raises StoreError.
        """
        return self._state.is_empty or not self.store.exists()

    def _in_use(self) -> list[StoredModel]:
        return [model for model in (self.current, self.shadow) if model is not None]

    def _in_memory(self) -> list[StoredModel]:
        return self._in_use() + self.loader.standby.models()

    def _read_aliases(self) -> Mapping[str, int]:
        """Return the aliases; raises StoreError for an empty place where there was a store."""
        aliases = self.store.aliases()
        was_there = bool(self.aliases) or (self.current is not None and not self.store.exists())
        self._state.is_empty = was_there and not aliases
        if self._state.is_empty:
            raise StoreError(f"there is nothing in {self.store} any more: is the volume mounted?")
        return aliases

    def _unreplaced(self, aliases: Mapping[str, int]) -> list[StoredModel]:
        """Return the models in use but those that the store has replaced; none stays on standby."""
        if aliases != self.aliases or self._state.fault:
            self.loader.retry_all()
        elif time.monotonic() - self._rechecked < _RECHECK_SECONDS:
            return self._in_use()
        replaced = self.loader.replaced(self._in_memory())
        for model in replaced:
            self.loader.standby.drop(model)
        self._rechecked = time.monotonic()
        return [m for m in self._in_use() if not any(m is other for other in replaced)]

    def _find_served(
        self, loader: Loader, aliases: Mapping[str, int], in_use: list[StoredModel]
    ) -> StoredModel | None:
        """Return what is to be served from now on, None to go on with what is."""
        wanted = _wanted(loader, self.serve, aliases)
        if wanted is None:
            return None
        model = _of_version(wanted, in_use) or loader.try_load(wanted)
        if model or self.current or self.serve.isdecimal():
            # A server that was started for a number serves that number or nothing.
            return model
        # Nothing is served and the wanted version is damaged: one before it is better than none.
        return next(filter(None, map(loader.try_load, loader.passed(below=wanted))), None)

    def _find_shadow(
        self, selected: str, aliases: Mapping[str, int], in_use: list[StoredModel]
    ) -> StoredModel | None:
        """Return the shadow; while another one cannot be loaded, the old one stays."""
        wanted = _wanted(self.loader, selected, aliases)
        if wanted is None:
            return None
        in_use = [*in_use, *self._in_use()[:1]]  # what has become the served one just now
        return _of_version(wanted, in_use) or self.loader.try_load(wanted) or self.shadow

    def _load_selected(self, version: int) -> StoredModel:
        """Load what a caller selected and keep it on standby."""
        try:
            model = self.loader.load(version)
        except VersionNotFound as error:
            if self._state.fault:
                raise NotReady("the store cannot be read at the moment") from error
            raise ModelNotFound(str(error)) from error
        except CorruptVersion as error:
            raise ModelUnavailable(f"version {version} cannot answer: {error}") from error
        except StoreError as error:
            raise NotReady("the store cannot be read at the moment") from error
        self.loader.standby.put(model)
        return model

    def _switch_to(self, model: StoredModel) -> bool:
        previous = self.current
        if model is previous:
            return False
        self.current = model  # one assignment: a call sees the old one or the new one, whole
        manifest = model.manifest
        fields: dict[str, object] = {"model": manifest.model, "version": manifest.version}
        fields["digest"] = manifest.digest
        self.loader.standby.drop(model)
        if previous is not None:
            fields["previous"] = previous.manifest.version
            if previous.manifest.version != manifest.version:
                self.loader.standby.put(previous)
        log.info("serving", extra=fields)
        return True

    def _serve_last_seen(self) -> bool:
        """Serve what is kept of a store that cannot be read; return False when that is nothing."""
        if self._last_seen is None:
            return False
        try:
            aliases = self._last_seen.store.aliases()
            model = self._find_served(self._last_seen, aliases, [])
        except StoreError as error:
            log.error("the cache cannot be read", extra={"reason": str(error)})
            return False
        if model is None:
            return False
        self.aliases = aliases
        fields = {"version": model.manifest.version, "store": str(self.store.root)}
        log.warning("serving what was last seen of the store", extra=fields)
        return self._switch_to(model)

    def _waiting_for(self) -> str:
        # For callers too: the log has the fault itself.
        if self._state.fault:
            return "the store cannot be read"
        return f"{self.serve} of {self.store.model} is not there"


class _StoreState:
    """What became of the store; each change is logged once, not at every poll."""

    def __init__(self, store: Store) -> None:
        self.fault = ""
        self.is_empty = False  # whether nothing was where there had been a store
        self._store = store
        self._is_waiting = False

    def failed(self, error: StoreError) -> None:
        if str(error) != self.fault:
            self.fault = str(error)
            log.error("the store cannot be read", extra={"reason": self.fault})

    def is_back(self) -> None:
        if self.fault:
            self.fault = ""
            log.info("the store can be read again")

    def is_waiting(self, reason: str) -> None:
        if self._is_waiting:
            return
        self._is_waiting = True
        root = self._store.root
        if isinstance(root, Path) and _is_missing(root):
            reason = f"there is no folder {root} yet, or its name is wrong"
        log.info("waiting for a model", extra={"reason": reason, "store": str(root)})


def _is_missing(folder: Path) -> bool:
    try:
        folder.stat()
    except FileNotFoundError:
        return True
    except OSError:  # which says nothing about the folder
        return False
    return False


def _of_version(version: int, models: list[StoredModel]) -> StoredModel | None:
    return next((model for model in models if model.manifest.version == version), None)


def _wanted(loader: Loader, selected: str, aliases: Mapping[str, int]) -> int | None:
    """Return the number of an alias, of a number, or of "latest"."""
    if selected == LATEST:
        return next(loader.passed(), None)
    return int(selected) if selected.isdecimal() else aliases.get(selected)
