"""A lock in an object store, where no kernel frees it: its holder has to renew it.

It keeps writers from working in vain, and lets the second of two writers see what the first one
did. Versions are whole and aliases right without it: numbers are claimed, and objects replaced,
by conditional puts.
"""

import json
import logging
import random
import secrets
import time

from mlpserve_model.format.errors import StoreBusy
from mlpserve_model.format.records import actor
from mlpserve_model.store.backend import Conflict
from mlpserve_model.store.object_client import Found, Objects

__all__ = ["LOCK_FILE", "Lease"]

LOCK_FILE = ".lock"
_POLL_SECONDS = 0.2
_FREE = b'{"holder": null}\n'

log = logging.getLogger(__name__)


class Lease:
    """The lock of one model; a holder that does not renew it for `seconds` may lose it.

    The process that waits measures this time, so that no two clocks are compared.
    """

    def __init__(self, objects: Objects, seconds: float) -> None:
        self._objects = objects
        self._seconds = seconds
        self._held: Found | None = None
        self._renewed = 0.0

    def take(self, timeout: float) -> None:
        """Wait for the lock; raises StoreBusy after `timeout` seconds, or OSError."""
        deadline, seen, since = time.monotonic() + timeout, b"", 0.0
        while True:
            found, now = self._objects.find(LOCK_FILE), time.monotonic()
            if found is not None and found.data != seen:
                seen, since = found.data, now
            silent = now - since > self._seconds
            if found is None or found.data == _FREE or silent:
                try:
                    self._hold(found)
                except Conflict:
                    continue  # another process was faster
                if found is not None and found.data != _FREE:
                    log.warning("took over the lock", extra={"holder": _holder(found.data)})
                return
            if now >= deadline:
                raise StoreBusy(
                    f"{self._objects} is held by {_holder(found.data)} for more than {timeout:g} s"
                )
            time.sleep(random.uniform(0.5, 1.5) * _POLL_SECONDS)

    def renew(self, at_once: bool = False) -> None:
        """Renew the lock, if it is time to; raises OSError when it was lost."""
        due = at_once or time.monotonic() - self._renewed > self._seconds / 3
        if self._held is None or not due:
            return
        try:
            self._hold(self._held)
        except Conflict as error:
            raise OSError(
                f"another writer took the lock over after {self._seconds:g} s of silence: try again"
            ) from error

    def free(self) -> None:
        """Release the lock; if the store fails, another process takes it over later."""
        held, self._held = self._held, None
        if held is not None:
            try:
                self._objects.put(LOCK_FILE, _FREE, held)
            except (Conflict, OSError) as error:
                log.warning("could not free the lock", extra={"reason": str(error)})

    def _hold(self, before: Found | None) -> None:
        # Never the same text twice: a process that waits sees that the holder lives.
        document = {"holder": actor(), "token": secrets.token_hex(8)}
        started = time.monotonic()
        self._held = self._objects.put(LOCK_FILE, json.dumps(document).encode() + b"\n", before)
        self._renewed = started


def _holder(data: bytes) -> str:
    try:
        holder = json.loads(data)["holder"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    return str(holder)[:200]
