"""Whether the store can be read, and whether it is there: logged when it changes, not each time."""

import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from pathlib import Path

from mlpserve_model import CHAMPION, StoreError
from mlpserve_model.store.listing import other_models
from mlpserve_model.store.reader import StoreReader

__all__ = ["Stamp", "StoreState", "no_stamp"]

Stamp = Callable[[], Hashable]

# The longest time between two polls that read the aliases: where a stamp is that of a file, which
# may change within the resolution of its time, and where it is that of the content.
_READ_SECONDS, _READ_SECONDS_BY_CONTENT = 5.0, 60.0

log = logging.getLogger(__name__)


def no_stamp() -> None:
    """Return None: there is no stamp by content."""


class StoreState:
    """What the last poll found of a store; `fault` says why it cannot be read, if it cannot."""

    def __init__(self, store: StoreReader, stamp: Stamp = no_stamp) -> None:
        """Make it; `stamp` returns a stamp by content, None if the store must be asked."""
        self.fault = ""
        self._store = store
        self._content_stamp = stamp
        self._is_empty = False  # nothing was found where there had been a store
        self._rejected = ""  # of a store without a champion: what the gate said of the newest
        self._waiting_for = ""
        self._stamp: Hashable = None  # of the aliases, before they were read last
        self.has_moved = False  # the stamp by content is another than the one before
        self._read_at = -math.inf
        # From when the poll that has begun succeeds.
        self._next: tuple[Hashable, float] = self._stamp, self._read_at

    def is_unchanged(self) -> bool:
        """Return True if the aliases have the stamp that they had when they were read last.

        They are read again from time to time all the same, and after a fault. A server can poll a
        thousand models in turn only if most polls are this cheap.
        """
        self.has_moved = False
        if self.is_known_unchanged():
            return True
        stamp = self._content_stamp()
        self.has_moved = stamp is not None and stamp != self._stamp
        if stamp is None:
            stamp = self._store.aliases_stamp()
            if self._was_read_with(stamp, _READ_SECONDS):
                return True
        self._next = stamp, time.monotonic()
        return False

    def is_known_unchanged(self) -> bool:
        """Return True if `is_unchanged` would, and the store need not be asked for that."""
        return self._was_read_with(self._content_stamp(), _READ_SECONDS_BY_CONTENT)

    def _was_read_with(self, stamp: Hashable, seconds: float) -> bool:
        """Return True if the aliases were read with this stamp, within this time."""
        is_recent = time.monotonic() - self._read_at <= seconds
        return stamp is not None and stamp == self._stamp and is_recent and not self.fault

    def read_aliases(self, known: Mapping[str, int], serving: bool) -> Mapping[str, int]:
        """Return the aliases.

        Args:
            known: The aliases of the poll before.
            serving: Whether a version of this store is in service.

        Raises:
            StoreError: The store cannot be read, or nothing is left of it.

        """
        aliases = self._store.aliases()
        was_there = bool(known) or (serving and not self._store.exists())
        self._is_empty = was_there and not aliases
        if self._is_empty:
            raise StoreError(f"there is nothing in {self._store} any more: is the volume mounted?")
        return aliases

    def is_unreachable(self) -> bool:
        """Return True if there is no store, or nothing was left of it at the last poll.

        An empty store can be reached. Raises StoreError.
        """
        return self._is_empty or not self._store.exists()

    def failed(self, error: StoreError) -> None:
        """Log a fault, unless the last poll had the same."""
        if str(error) != self.fault:
            self.fault = str(error)
            fields = {"model": self._store.model, "reason": self.fault}
            log.error("the store cannot be read", extra=fields)

    def succeeded(self) -> None:
        """Note that the poll has read the store, and log that the fault is over, if there was one.

        A poll that ends otherwise, for whatever reason, has read nothing.
        """
        self._stamp, self._read_at = self._next
        if self.fault:
            self.fault = ""
            log.info("the store can be read again", extra={"model": self._store.model})

    def waits_for(self, selected: str, refusal: str = "") -> str:
        """Return why there is no model for this selection, for callers: the log has the fault.

        Args:
            selected: An alias, a number, or "latest".
            refusal: Why the version that it stands for was refused, if it was.

        """
        if self.fault:
            return "the store cannot be read"
        rejected = self._rejected if selected == CHAMPION and not refusal else ""
        return f"{selected} of {self._store.model} {refusal or 'is not there'}{rejected}"

    def is_waiting(self, selected: str, refusal: str) -> None:
        """Log that there is nothing to serve yet, and why, unless the last line was the same."""
        self._rejected = self._newest_rejected()
        root, reason = self._store.root, self.waits_for(selected, refusal)
        if reason == self._waiting_for:
            return
        self._waiting_for = reason
        if isinstance(root, Path) and _is_missing(root):
            reason = f"there is no folder {root} yet, or its name is wrong"
        elif not self.fault and not refusal:
            reason += other_models(root, self._store.model)
        fields = {"model": self._store.model, "reason": reason, "store": str(root)}
        log.info("waiting for a model", extra=fields)

    def _newest_rejected(self) -> str:
        """Return the end of a reason why there is no champion, if the gate is it."""
        with suppress(StoreError):  # the next poll will tell
            for version, _ in self._store.newest():
                if self._store.manifest(version).gate.verdict != "REJECTED":
                    break
                return (
                    f": the gate rejected version {version}, the newest (`mlpserve models promote "
                    f"{version} --force --reason TEXT` would promote it all the same)"
                )
        return ""


def _is_missing(folder: Path) -> bool:
    try:
        folder.stat()
    except FileNotFoundError:
        return True
    except OSError:  # which says nothing about the folder
        return False
    return False
