"""Which version answers: follows the store, and never drops what works for what does not."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress

from mlpserve_model import StoredModel, StoreError
from mlpserve_server.errors import NotInMemory, NotReady
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.selection import (
    LATEST,
    are_selected,
    find_last_seen,
    find_served,
    find_shadow,
    load_selected,
    of_version,
    target,
)
from mlpserve_server.lifecycle.store_state import Stamp, StoreState, no_stamp

__all__ = ["LATEST", "ModelManager"]

log = logging.getLogger(__name__)


class ModelManager:
    """Keeps the served version in memory, beside some others that callers may select.

    `serve` and `shadow` are aliases, numbers, or "latest" for the newest version that the gate
    let pass. `poll` belongs to one thread; everything else may be called from any.

    Attributes:
        loader: Reads the store, and keeps the versions on standby.
        current: The model that answers calls that select nothing, None while there is none.
        store_state: What the last poll found of the store.
        shadow: The model that is compared with it, if there is one.
        aliases: Where the aliases pointed at the last poll.
        last_read: When the store could be read last, in seconds as `time.time` gives them.

    """

    def __init__(
        self, loader: Loader, serve: str, shadow: str | None = None, stamp: Stamp = no_stamp
    ) -> None:
        self.store = loader.store
        self.serve = serve
        self.loader = loader
        self.current: StoredModel | None = None
        self.shadow: StoredModel | None = None
        self.aliases: Mapping[str, int] = {}
        self.last_read = 0.0
        self._last_seen = loader.of_last_seen()
        self._shadow_selected = shadow
        self.store_state = StoreState(loader.store, stamp)

    @property
    def loaded(self) -> list[int]:
        """The versions in memory, in order."""
        return sorted({model.manifest.version for model in self._in_memory()})

    @property
    def max_inputs(self) -> int:
        """The inputs of the model in memory that has most of them; 0 without models."""
        return max((model.manifest.network.inputs for model in self._in_memory()), default=0)

    @property
    def refusal(self) -> str:
        """Why the version that is to be served was refused; "" if it was not."""
        version = int(self.serve) if self.serve.isdecimal() else self.aliases.get(self.serve)
        return "" if version is None else self.loader.refusals.for_callers(version)

    def poll(self) -> bool:
        """Read the store once; return True when another version answers from now on.

        Raises nothing for what can happen to a volume or to a version: whatever it is, the
        version in service stays in service.
        """
        if self.is_settled(may_read=True):
            return False
        try:
            aliases = self.store_state.read_aliases(self.aliases, serving=self.current is not None)
            changed = aliases != self.aliases or bool(self.store_state.fault)
            at_once = changed or self.store_state.has_moved
            in_use = self.loader.unreplaced(self._in_use(), at_once)
            serving = self.current is not None
            model = find_served(self.loader, self.serve, aliases, in_use, serving)
        except StoreError as error:
            self.store_state.failed(error)
            return self.current is None and self._serve_last_seen()
        self.store_state.succeeded()
        self.last_read = time.time()
        switched = model is not None and self._switch_to(model)
        self.aliases = aliases
        if self._shadow_selected:
            with suppress(StoreError):  # it was readable a moment ago: the next poll will tell
                models = [*in_use, *self._in_use()[:1]]  # what has become the served one just now
                self.shadow = find_shadow(
                    self.loader, self._shadow_selected, aliases, models, self.shadow
                )
        if self.current is None:
            self.store_state.is_waiting(self.serve, self.refusal)
        return switched

    def is_settled(self, may_read: bool = False) -> bool:
        """Return True if nothing is new; unless `may_read`, as is known without the store."""
        state, chosen = self.store_state, [(self.serve, self.current)]
        if self._shadow_selected:
            chosen.append((self._shadow_selected, self.shadow))
        unchanged = state.is_unchanged() if may_read else state.is_known_unchanged()
        if not (unchanged and are_selected(chosen, self.aliases)):
            return False
        self.last_read = time.time()
        return True

    def get(
        self, version: int | None = None, alias: str | None = None, may_load: bool = True
    ) -> StoredModel:
        """Return the model that answers for this selection; with none, the served one.

        Raises NotReady, ModelNotFound or ModelUnavailable; and NotInMemory for a version that
        would have to be read from the store, unless `may_load`.
        """
        current = self.current
        if alias is not None:
            version = target(self.aliases, alias)
        if version is None:
            if current is None:
                reason = self.store_state.waits_for(self.serve, self.refusal)
                raise NotReady(f"no model to serve yet: {reason}")
            return current
        if model := of_version(version, self._in_use()) or self.loader.standby.get(version):
            return model
        if not may_load:
            raise NotInMemory(f"version {version} is not in memory")
        return load_selected(self.loader, version, unreachable=bool(self.store_state.fault))

    def in_memory(self, version: int) -> StoredModel | None:
        """Return the version if it can answer at once, whatever has become of the store."""
        return of_version(version, self._in_memory())

    def _in_use(self) -> list[StoredModel]:
        return [model for model in (self.current, self.shadow) if model is not None]

    def _in_memory(self) -> list[StoredModel]:
        return self._in_use() + self.loader.standby.models()

    def _switch_to(self, model: StoredModel) -> bool:
        previous = self.current
        if model is previous:
            return False
        self.current = model  # one assignment: a call sees the old one or the new one, whole
        manifest = model.manifest
        fields: dict[str, object] = {
            "model": manifest.model, "version": manifest.version, "digest": manifest.digest
        }  # fmt: skip
        self.loader.standby.drop(model)
        if previous is not None:
            fields["previous"] = previous.manifest.version
            if previous.manifest.version != manifest.version:
                self.loader.standby.put(previous)
        log.info("serving", extra=fields)
        return True

    def _serve_last_seen(self) -> bool:
        """Serve what is kept of a store that cannot be read; return False when that is nothing."""
        found = find_last_seen(self._last_seen, self.serve) if self._last_seen else None
        if found is None:
            return False
        self.aliases, model = found
        fields: dict[str, object] = {
            "model": self.store.model, "version": model.manifest.version,
            "store": str(self.store.root),
        }  # fmt: skip
        log.warning("serving what was last seen of the store", extra=fields)
        return self._switch_to(model)
