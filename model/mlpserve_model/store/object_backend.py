"""One model's versions in an object store: the same names as on a volume.

Objects are whole or absent, but there are no folders to claim, no renames and no locks that a
kernel frees. Conditional puts take their place: a number is claimed by an object that only one
writer can create, and an object is replaced only while it is the one that was read.
"""

import json
import os
import secrets
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from mlpserve_model.format.manifest import MANIFEST_FILE, FileInfo
from mlpserve_model.format.records import ALIASES_FILE, actor
from mlpserve_model.store.backend import VERSION, Conflict, next_number
from mlpserve_model.store.lease import LOCK_FILE, Lease
from mlpserve_model.store.location import Bucket
from mlpserve_model.store.object_client import Found, Objects, open_objects

__all__ = ["ObjectBackend", "open_backend"]

CLAIM_FILE = "claim.json"
LEASE_SECONDS = 30.0
# A version without a manifest is kept for this time, which is longer than any request takes.
LITTER_SECONDS = 3600.0
_MAX_ATTEMPTS = 100


def open_backend(location: Bucket, model: str) -> "ObjectBackend":
    """Return the Backend of a model in an object store, with the environment's credentials.

    Raises StoreError when the environment is not sufficient; no request is sent.
    """
    objects = open_objects(location, model, os.environ)
    return ObjectBackend(objects, LEASE_SECONDS, LITTER_SECONDS)


class ObjectBackend:
    """The Backend in an object store."""

    def __init__(self, objects: Objects, lease_seconds: float, litter_seconds: float) -> None:
        self._objects = objects
        self._lease = Lease(objects, lease_seconds)
        self._litter = timedelta(seconds=litter_seconds)
        self._polled: Found | None = None  # the aliases as they were last read

    def __str__(self) -> str:
        return str(self._objects)

    def exists(self) -> bool:
        """As Backend says: every request fails if the bucket does not exist."""
        return True

    def file_stamp(self, name: str) -> Hashable:
        """As Backend says: a stamp would cost a request as well."""
        return None

    def newest(self, below: float) -> Iterator[tuple[int, Hashable]]:
        """As Backend says: one request for every thousand objects."""
        names = ((entry.name.partition("/"), entry.tag) for entry in self._objects.list())
        found = {
            int(number): tag
            for (number, _, name), tag in names
            if name == MANIFEST_FILE and VERSION.fullmatch(number) and int(number) < below
        }
        yield from sorted(found.items(), reverse=True)

    def stamp(self, version: int) -> Hashable:
        """As Backend says."""
        return self._objects.tag(f"{version}/{MANIFEST_FILE}")

    def contents_stamp(self, version: int) -> Hashable:
        """As Backend says: one request."""
        return frozenset((entry.name, entry.tag) for entry in self._objects.list(str(version)))

    def read(self, name: str, limit: int, last: int | None = None) -> bytes:
        """As Backend says; aliases that have not changed are not transferred again.

        All bytes are transferred for the `last` ones too, since Azure gives no end of an object.
        """
        if name == ALIASES_FILE:
            self._polled = self._objects.get(name, limit, self._polled)
            data = self._polled.data
        else:
            data = self._objects.get(name, limit).data
        return data if last is None else data[-last:]

    def stat(self, name: str) -> FileInfo:
        """As Backend says."""
        return self._objects.stat(name)

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """As Backend says, except that a writer loses it after a time of silence: see Lease."""
        self._lease.take(timeout)
        try:
            yield
        finally:
            self._lease.free()

    def collect_garbage(self) -> None:
        """Remove old claims that never became versions, and what was written under them.

        Their age is measured by the store's own clock, against the lock that was just taken. New
        ones stay: a request of a writer that lost the lock may still arrive.
        """
        entries = self._objects.list()
        names = {entry.name for entry in entries}
        now = next((entry.written for entry in entries if entry.name == LOCK_FILE), None)
        if now is None:
            return
        for version in {number for number, _, _ in (n.partition("/") for n in names)}:
            if VERSION.fullmatch(version) and f"{version}/{MANIFEST_FILE}" not in names:
                found = [e for e in entries if e.name.startswith(f"{version}/")]
                if all(now - entry.written > self._litter for entry in found):
                    self._lease.renew()
                    self._objects.delete([entry.name for entry in found])

    def claim(self, above: int) -> int:
        """Create the claim of the next version; the put fails for every other writer."""
        self.collect_garbage()
        numbers = (entry.name.partition("/")[0] for entry in self._objects.list())
        version = next_number(above, *(int(n) for n in numbers if VERSION.fullmatch(n)))
        time = datetime.now(UTC).isoformat(timespec="seconds")
        claim = {"actor": actor(), "time": time, "token": secrets.token_hex(8)}
        document = json.dumps(claim).encode() + b"\n"
        while True:
            self._lease.renew()
            try:
                self._objects.put(f"{version}/{CLAIM_FILE}", document)
            except Conflict:
                version = next_number(version)
            else:
                return version

    def write(self, name: str, data: bytes) -> None:
        """As Backend says; the manifest only after the lock was renewed."""
        self._lease.renew(at_once=name.endswith(f"/{MANIFEST_FILE}"))
        try:
            self._objects.put(name, data)
        except Conflict as error:
            raise OSError(f"{name} is there already") from error

    def replace(self, name: str, data: bytes, before: bytes | None) -> None:
        """As Backend says."""
        self._lease.renew()
        found = self._objects.find(name)
        if (None if found is None else found.data) != before:
            raise Conflict(name)
        self._objects.put(name, data, found)

    def append(self, name: str, lines: bytes) -> None:
        """As Backend says: the object is replaced, repeatedly if another writer was faster."""
        self._lease.renew()
        for attempt in range(_MAX_ATTEMPTS):
            found = self._objects.find(name)
            text = found.data if found else b""
            if attempt and b"\n" + lines in b"\n" + text:
                return  # it was written: the answer was lost, and others appended meanwhile
            if text and not text.endswith(b"\n"):
                text += b"\n"
            try:
                self._objects.put(name, text + lines, found)
            except Conflict:
                continue
            return
        raise OSError(f"{name} was replaced {_MAX_ATTEMPTS} times while a line was added")

    def abort(self, version: int) -> None:
        """Do nothing: the request for the manifest may still arrive, and must find the files.

        What stays is invisible, or a whole version; `collect_garbage` removes it when it is old.
        """

    def remove(self, versions: Sequence[int]) -> None:
        """As Backend says: the manifest goes first."""
        for version in versions:
            self._lease.renew()
            self._objects.delete([f"{version}/{MANIFEST_FILE}"])
            self._objects.delete([entry.name for entry in self._objects.list(str(version))])
