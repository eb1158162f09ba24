"""The versioned store: the contract between trainer and server, and its rules.

    <root>/<model>/<version>/model.npz, golden.npz, ...   written first
    <root>/<model>/<version>/manifest.json                written last: now the version exists
    <root>/<model>/aliases.json                           which version is served
    <root>/<model>/history.jsonl                          who did what, when and why

Where that is, on a shared volume or in an object store, is the affair of a Backend.
"""

import hashlib
import math
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlpserve_model.errors import AliasConflict, CorruptVersion, StoreError, VersionNotFound
from mlpserve_model.format.manifest import (
    MANIFEST_FILE,
    MAX_BYTES,
    NAME,
    Draft,
    FileInfo,
    Manifest,
    Verdict,
    encode_manifest,
)
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_model.format.records import (
    ALIAS,
    ALIASES_FILE,
    HISTORY_FILE,
    actor,
    decode_aliases,
    decode_events,
    encode_aliases,
    encode_event,
    recorded_digests,
)
from mlpserve_model.format.version_files import (
    StoredModel,
    compare,
    model_files,
    read_model,
    read_verified,
)
from mlpserve_model.nn.network import Weights
from mlpserve_model.nn.types import Array
from mlpserve_model.store.backend import Backend, Conflict
from mlpserve_model.store.folder_backend import FolderBackend
from mlpserve_model.store.location import Bucket, parse_location

__all__ = ["CHAMPION", "Store"]

CHAMPION = "champion"
# A history is never read into more memory than this.
_MAX_HISTORY_BYTES = 2**30


class Store:
    """The versions of one model below a root, which need not exist yet.

    `root` is a folder, or the address of a place in an object store: "s3://bucket/prefix".
    Raises StoreError for an address or a model name that cannot be one, and for an object store
    whose client is not installed.
    """

    def __init__(self, root: Path | Bucket | str, model: str) -> None:
        if not NAME.fullmatch(model):
            raise StoreError(f"the model name {model!r} must match {NAME.pattern}")
        self.root = parse_location(root)
        self.model = model
        self._backend = _open(self.root, model)
        self._lock = threading.RLock()
        self._held: ExitStack | None = None
        self._recorded: dict[int, str | None] = {}  # what the history says of each number
        self.last_seen: Store | None = None  # what is kept of it on this machine, if anything

    def __str__(self) -> str:
        return str(self._backend)

    @property
    def folder(self) -> Path:
        """The model's folder; raises StoreError for an object store, which has none."""
        if not isinstance(self.root, Path):
            raise StoreError(f"{self.root} is not a folder")
        return self.root / self.model

    def path(self, version: int) -> Path:
        """The folder of a version, whether or not it exists; raises as `folder`."""
        return self.folder / str(version)

    # Reading

    def exists(self) -> bool:
        """Return True if there is a place for this model, even one without versions."""
        with _translated(f"cannot list {self._backend}"):
            return self._backend.exists()

    def versions(self) -> list[int]:
        """The numbers of all versions, oldest first; empty when there is no store yet."""
        return [version for version, _ in self.newest()][::-1]

    def newest(self, below: float = math.inf) -> Iterator[tuple[int, Hashable]]:
        """Give the number and the stamp of each version below a number, newest first, lazily."""
        with _translated(f"cannot list {self._backend}"):
            yield from self._backend.newest(below)

    def stamp(self, version: int) -> Hashable:
        """Return what changes when the version's manifest is replaced, None if there is none.

        A stamp is cheap to get. Equal ones mean the same manifest; different ones, that it has to
        be read to know.
        """
        with _translated(f"cannot look at {self._backend}/{version}"):
            return self._backend.stamp(version)

    def manifest(self, version: int) -> Manifest:
        """The checked manifest of a version.

        Raises VersionNotFound, CorruptVersion for a manifest that is wrong or is not the one that
        was published, or StoreError, also where the store itself is not there.
        """
        name = f"{version}/{MANIFEST_FILE}"
        with _translated(f"cannot read {self._backend}/{name}"):
            try:
                data = self._backend.read(name, MAX_BYTES)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not self._backend.exists():
                    raise StoreError(f"there is no folder {self._backend}") from error
                raise VersionNotFound(f"{self.model} has no version {version}") from error
        manifest = read_manifest(data)
        if (manifest.model, manifest.version) != (self.model, version):
            raise CorruptVersion(
                f"the manifest is that of {manifest.model} version {manifest.version}, "
                f"expected {self.model} version {version}"
            )
        self._check_recorded(manifest)
        return manifest

    def _check_recorded(self, manifest: Manifest) -> None:
        """Raise CorruptVersion for another manifest than the history says was published.

        The history is read again for a number that it did not have, and before a rejection.
        """
        version, digest = manifest.version, manifest.own_digest
        if self._recorded.get(version, "") not in (digest, None):
            self._recorded = recorded_digests(self._history())
        expected = self._recorded.get(version) or digest
        if digest != expected:
            raise CorruptVersion(
                f"{MANIFEST_FILE} is not the one that was published: its digest is {digest}, "
                f"expected {expected} by the history"
            )

    def load(self, version: int) -> StoredModel:
        """Read, verify and self-test a version.

        Raises VersionNotFound, CorruptVersion with what is wrong, or StoreError when the
        store cannot be read, which says nothing about the version.
        """
        with self._reading(version):
            return read_model(
                lambda name, limit: self._backend.read(f"{version}/{name}", limit),
                self.manifest(version),
            )

    def document(self, version: int, name: str, limit: int) -> bytes:
        """Return a further file of a version, such as report.html, as the manifest has it.

        Raises VersionNotFound, also for a file that the version does not have, CorruptVersion for
        one that is damaged or larger than `limit` bytes, or StoreError.
        """
        with self._reading(version):
            files = self.manifest(version).files
            if name not in files:
                raise VersionNotFound(f"{self.model} version {version} has no {name}")
            path = f"{version}/{name}"
            return read_verified(
                lambda _, bound: self._backend.read(path, bound), name, files[name], limit
            )

    def verify(self, version: int) -> Manifest:
        """Load a version and compare every other file with its digest; raises as `load`."""
        manifest = self.load(version).manifest
        with self._reading(version):
            for name, info in manifest.files.items():
                try:
                    compare(name, self._backend.stat(f"{version}/{name}"), info)
                except FileNotFoundError as error:
                    raise CorruptVersion(f"{name} is missing") from error
        return manifest

    def aliases(self) -> dict[str, int]:
        """Where every alias points; raises StoreError when aliases.json is not readable."""
        return self._aliases()[0]

    def resolve(self, alias: str) -> int:
        """The version that an alias points at; raises VersionNotFound or StoreError."""
        version = self.aliases().get(alias)
        if version is None:
            raise VersionNotFound(f"{self.model} has no alias {alias!r}")
        return version

    def history(self) -> list[dict[str, Any]]:
        """Every recorded event, oldest first; a line torn by a crash is left out."""
        return decode_events(self._history())

    def _history(self) -> bytes:
        what = f"{self._backend}/{HISTORY_FILE}"
        with _translated(f"cannot read {what}"):
            try:
                return self._backend.read(HISTORY_FILE, _MAX_HISTORY_BYTES)
            except FileNotFoundError:
                return b""
            except CorruptVersion as error:
                raise StoreError(f"cannot read {what}: {error}") from error

    def _aliases(self) -> tuple[dict[str, int], bytes | None]:
        """The aliases, and the file's bytes if there is one."""
        what = f"{self._backend}/{ALIASES_FILE}"
        with _translated(f"cannot read {what}"):
            try:
                data = self._backend.read(ALIASES_FILE, MAX_BYTES)
                return decode_aliases(data), data
            except FileNotFoundError:
                return {}, None
            except CorruptVersion as error:
                raise StoreError(f"cannot read {what}: {error}") from error
            except ValueError as error:
                raise StoreError(f"{what} is {error}") from error

    @contextmanager
    def _reading(self, version: int) -> Iterator[None]:
        """A version that is pruned while it is read is gone, not damaged."""
        with _translated(f"cannot read {self._backend}/{version}"):
            try:
                yield
            except CorruptVersion as error:
                if self._backend.stamp(version) is not None:
                    raise
                raise VersionNotFound(f"{self.model} has no version {version} now") from error

    # Writing

    @contextmanager
    def lock(self, timeout: float = 60.0) -> Iterator[None]:
        """Hold this model's lock, which every write takes; may be nested.

        Raises StoreBusy when another process keeps it for more than `timeout` seconds.
        """
        with self._lock:
            if self._held is not None:
                yield
                return
            with ExitStack() as stack:
                with _translated(f"cannot write to {self._backend}"):
                    stack.enter_context(self._backend.lock(timeout))
                self._held = stack
                stack.callback(setattr, self, "_held", None)
                yield

    def publish(
        self,
        draft: Draft,
        verdict: Verdict,
        weights: Weights,
        golden_inputs: Array,
        extra_files: Mapping[str, bytes] | None = None,
    ) -> Manifest:
        """Write a new version, durable and whole, and return its manifest.

        Which version is served does not change.

        Args:
            draft: What the version is; its model is the store's.
            verdict: What the gate says of it.
            weights: What it answers with, of the draft's network.
            golden_inputs: Scaled instances for the self-test, (rows, inputs).
            extra_files: More files by name, such as "report.html".

        Raises:
            StoreError: The store refuses.
            CorruptVersion: No reader would accept the version.

        """
        contents = {**model_files(draft.network, weights, golden_inputs), **(extra_files or {})}
        infos = {
            name: FileInfo(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in contents.items()
        }
        draft = replace(draft, model=self.model)
        with self.lock(), _translated(f"cannot publish to {self._backend}"):
            self._backend.collect_garbage(thorough=False)
            # A number is given out once, even where its version has been removed.
            known = max(recorded_digests(self._history()), default=0)
            version = self._backend.claim(above=known)
            try:
                document = encode_manifest(
                    draft,
                    verdict,
                    infos,
                    version=version,
                    created=_now(),
                    golden_rows=len(golden_inputs),
                )
                return self._write_version(document, contents)
            except BaseException:
                self._backend.abort(version)
                raise

    def move_alias(
        self, alias: str, version: int, *, expected: int | None, event: str, reason: str
    ) -> None:
        """Point an alias at a version if it still points at `expected` (None: nowhere).

        The history is written first: an alias never moves without a record.
        Raises AliasConflict when it moved meanwhile, VersionNotFound, or StoreError.
        """
        if not ALIAS.fullmatch(alias):
            raise StoreError(f"the alias {alias!r} must match {ALIAS.pattern}")
        with self.lock():
            aliases, before = self._aliases()
            if aliases.get(alias) != expected:
                raise AliasConflict(
                    f"{alias} points at {aliases.get(alias)}, expected {expected}: look again"
                )
            self.manifest(version)
            self.record(event, version, reason, alias=alias, previous=expected)
            document = encode_aliases(aliases | {alias: version})
            with _translated(f"cannot write to {self._backend}"):
                try:
                    self._backend.replace(ALIASES_FILE, document, before)
                except Conflict as error:
                    raise AliasConflict(f"{alias} moved meanwhile: look again") from error

    def prune(self, keep: int) -> list[int]:
        """Remove all but the newest `keep` versions and those with an alias.

        Returns the numbers removed, oldest first. Raises StoreError.
        """
        if keep < 1:
            raise StoreError(f"keep must be at least 1, got {keep}")
        with self.lock():
            aliased = set(self.aliases().values())
            old = [v for v in self.versions()[:-keep] if v not in aliased]
            reason = f"keeping the newest {keep} and every alias"
            self._append([_event("prune", version, reason) for version in old])
            with _translated(f"cannot remove versions of {self._backend}"):
                self._backend.remove(old)
                self._backend.collect_garbage(thorough=True)
        return old

    def record(self, event: str, version: int | None, reason: str, **more: Any) -> None:
        """Append one event to the history, with the time and who this process belongs to.

        `version` is None for an event that is about none. Raises StoreError.
        """
        self._append([_event(event, version, reason, **more)])

    def _append(self, events: Sequence[Mapping[str, Any]]) -> None:
        if events:
            lines = b"".join(encode_event(event) + b"\n" for event in events)
            with self.lock(), _translated(f"cannot write to {self._backend}"):
                self._backend.append(HISTORY_FILE, lines)

    def _write_version(self, document: bytes, contents: Mapping[str, bytes]) -> Manifest:
        # Read back first: what no reader would accept is not written.
        manifest = read_manifest(document)
        version, digest = manifest.version, manifest.own_digest
        for name, data in contents.items():
            self._backend.write(f"{version}/{name}", data)
        # Before the manifest: a version never exists without a record.
        self.record("publish", version, manifest.gate.verdict, manifest=digest)
        self._backend.write(f"{version}/{MANIFEST_FILE}", document)
        return manifest


def _event(event: str, version: int | None, reason: str, **more: Any) -> dict[str, Any]:
    entry = {"time": _now().isoformat(), "event": event, "version": version}
    return entry | more | {"actor": actor(), "reason": reason}


def _open(root: Path | Bucket, model: str) -> Backend:
    if isinstance(root, Path):
        return FolderBackend(root / model)
    # Imported here: who has the store on a volume needs no client of object stores.
    try:
        from mlpserve_model.store.object_backend import open_backend
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{root} needs the package {error.name}: install the extra object-store, "
            "in a checkout: pip install '.[object-store]'"
        ) from error
    return open_backend(root, model)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The seam where the errors of file systems and networks become ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from error
