"""The versioned store, the contract between trainer and server.

    <root>/<model>/<version>/model.npz, golden.npz, ...   written first
    <root>/<model>/<version>/manifest.json                written last: now the version exists
    <root>/<model>/aliases.json                           which version is served
    <root>/<model>/history.jsonl                          who did what, when and why

A Backend knows how this is stored on a shared volume or in an object store.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlpserve_model.format.errors import AliasConflict, StoreError
from mlpserve_model.format.manifest import (
    MANIFEST_FILE,
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
    encode_aliases,
    encode_event,
    highest_recorded,
)
from mlpserve_model.format.version_files import (
    model_files,
)
from mlpserve_model.nn.network import Weights
from mlpserve_model.nn.types import Array
from mlpserve_model.store.backend import Conflict
from mlpserve_model.store.location import Bucket
from mlpserve_model.store.reader import StoreReader, translated

__all__ = ["CHALLENGER", "CHAMPION", "Store"]

CHAMPION = "champion"
# A version that passed the gate, and waits until evidence decides about it.
CHALLENGER = "challenger"
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})


class Store(StoreReader):
    """The versions of one model below a root, to read and to write."""

    def __init__(self, root: Path | Bucket | str, model: str) -> None:
        super().__init__(root, model)
        self._lock = threading.RLock()
        self._held: ExitStack | None = None

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
                with translated(f"cannot write to {self._backend}"):
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
        extra_files: Mapping[str, bytes] | Callable[[int], Mapping[str, bytes]] = _NO_FILES,
    ) -> Manifest:
        """Write a new version, durable and whole, and return its manifest.

        Which version is served does not change.

        Args:
            draft: What the version is; its model is the store's.
            verdict: The gate's verdict on it.
            weights: What it answers with, of the draft's network.
            golden_inputs: Scaled instances for the self-test, (rows, inputs).
            extra_files: More files by name, such as "report.html", or a function that makes
                them from the version's number.

        Raises:
            StoreError: The store refuses.
            CorruptVersion: No reader would accept the version.

        """
        own = model_files(draft.network, weights, golden_inputs)

        def contents(version: int) -> dict[str, bytes]:
            return {**own, **(extra_files(version) if callable(extra_files) else extra_files)}

        return self._publish(draft, verdict, contents, len(golden_inputs))

    def republish(self, version: int, verdict: Verdict) -> Manifest:
        """Write a version's model and files again, as a new version with another verdict.

        Raises:
            VersionNotFound: There is no such version.
            CorruptVersion: It is damaged.
            StoreError: The store refuses.

        """
        manifest = self.verify(version)
        contents = {
            name: self.document(version, name, info.size) for name, info in manifest.files.items()
        }
        draft = Draft(**{field.name: getattr(manifest, field.name) for field in fields(Draft)})
        return self._publish(draft, verdict, lambda _: contents, manifest.golden_rows)

    def _publish(
        self,
        draft: Draft,
        verdict: Verdict,
        contents_of: Callable[[int], Mapping[str, bytes]],
        golden_rows: int,
    ) -> Manifest:
        draft = replace(draft, model=self.model)
        with self.lock(), translated(f"cannot publish to {self._backend}"):
            # A number is given out once, even if its version has been removed.
            version = self._backend.claim(above=highest_recorded(self._history()))
            try:
                contents = contents_of(version)
                infos = {
                    name: FileInfo(hashlib.sha256(data).hexdigest(), len(data))
                    for name, data in contents.items()
                }
                document = encode_manifest(
                    draft,
                    verdict,
                    infos,
                    version=version,
                    created=_now(),
                    golden_rows=golden_rows,
                )
                return self._write_version(document, contents)
            except BaseException:
                self._backend.abort(version)
                raise

    def move_alias(
        self,
        alias: str,
        version: int,
        *,
        expected: int | None,
        event: str,
        reason: str,
        **more: Any,
    ) -> None:
        """Point an alias at a version if it still points at `expected` (None: nowhere).

        The history is written first, with `more` as further fields, so that an alias never moves
        without a record.
        Raises AliasConflict when it moved meanwhile, VersionNotFound, or StoreError.
        """
        if not ALIAS.fullmatch(alias):
            raise StoreError(f"the alias {alias!r} must match {ALIAS.pattern}")
        with self.lock(), self._changing(alias, expected) as aliases:
            self.manifest(version)
            self.record(event, version, reason, alias=alias, previous=expected, **more)
            aliases[alias] = version

    def drop_alias(
        self, alias: str, *, expected: int, event: str, reason: str, **more: Any
    ) -> None:
        """Remove an alias that still points at `expected`; else as `move_alias`."""
        with self.lock(), self._changing(alias, expected) as aliases:
            self.record(event, expected, reason, alias=alias, previous=expected, **more)
            del aliases[alias]

    @contextmanager
    def _changing(self, alias: str, expected: int | None) -> Iterator[dict[str, int]]:
        """Give the aliases to be changed, and write them; raises AliasConflict."""
        aliases, before = self._aliases()
        if aliases.get(alias) != expected:
            raise AliasConflict(
                f"{alias} points at {aliases.get(alias)}, expected {expected}: read it again"
            )
        changed = dict(aliases)
        yield changed
        with translated(f"cannot write to {self._backend}"):
            try:
                self._backend.replace(ALIASES_FILE, encode_aliases(changed), before)
            except Conflict as error:
                raise AliasConflict(f"{alias} moved meanwhile: read it again") from error

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
            with translated(f"cannot remove versions of {self._backend}"):
                self._backend.remove(old)
                self._backend.collect_garbage()
        return old

    def record(self, event: str, version: int | None, reason: str, **more: Any) -> None:
        """Append one event to the history, with the time and the user of this process.

        `version` is None for an event that is not about a version. Raises StoreError.
        """
        self._append([_event(event, version, reason, **more)])

    def _append(self, events: Sequence[Mapping[str, Any]]) -> None:
        if events:
            lines = b"".join(encode_event(event) + b"\n" for event in events)
            with self.lock(), translated(f"cannot write to {self._backend}"):
                self._backend.append(HISTORY_FILE, lines)

    def _write_version(self, document: bytes, contents: Mapping[str, bytes]) -> Manifest:
        # Read first: a version that no reader would accept is not written.
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


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
