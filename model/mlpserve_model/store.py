"""The versioned store on the shared volume: the contract between trainer and server.

    <root>/<model>/<version>/model.npz, golden.npz, ...   written first
    <root>/<model>/<version>/manifest.json                written last: now the version exists
    <root>/<model>/aliases.json                           which version is served
    <root>/<model>/history.jsonl                          who did what, when and why

Readers need no lock and no write access. Writers agree through one lock file for each model,
which the kernel frees when its holder dies.
"""

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlpserve_model import files
from mlpserve_model.errors import AliasConflict, ModelRejected, StoreError, VersionNotFound
from mlpserve_model.manifest import MANIFEST_FILE, MAX_BYTES, NAME, FileInfo, Manifest
from mlpserve_model.network import Weights
from mlpserve_model.records import (
    ALIAS,
    actor,
    decode_aliases,
    decode_events,
    encode_aliases,
    encode_event,
)
from mlpserve_model.stored import StoredModel, model_files, read_model, verify_file
from mlpserve_model.types import Array

__all__ = ["CHAMPION", "Store"]

CHAMPION = "champion"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class Store:
    """The versions of one model below a root folder, which need not exist yet.

    Raises StoreError for a model name that is not a plain folder name.
    """

    def __init__(self, root: Path | str, model: str) -> None:
        if not NAME.fullmatch(model):
            raise StoreError(f"the model name {model!r} must match {NAME.pattern}")
        self.model = model
        self.folder = Path(root) / model
        self._mutex = threading.RLock()
        self._lock: ExitStack | None = None

    # Reading

    def versions(self) -> list[int]:
        """The numbers of all versions, oldest first; empty when there is no store yet."""
        with _translated(f"cannot list {self.folder}"):
            try:
                names = [entry.name for entry in os.scandir(self.folder)]
            except FileNotFoundError:
                return []
            numbers = sorted(int(name) for name in names if _VERSION.fullmatch(name))
            return [n for n in numbers if (self.path(n) / MANIFEST_FILE).exists()]

    def path(self, version: int) -> Path:
        """The folder of a version, whether or not it exists."""
        return self.folder / str(version)

    def manifest(self, version: int) -> Manifest:
        """The checked manifest of a version.

        Raises VersionNotFound, ModelRejected for a manifest that is wrong, or StoreError.
        """
        path = self.path(version) / MANIFEST_FILE
        with _translated(f"cannot read {path}"):
            try:
                data = files.read_bounded(path, MAX_BYTES)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise VersionNotFound(f"{self.model} has no version {version}") from error
        manifest = Manifest.from_json(data)
        if (manifest.model, manifest.version) != (self.model, version):
            raise ModelRejected(
                f"the manifest is that of {manifest.model} version {manifest.version}, "
                f"expected {self.model} version {version}"
            )
        return manifest

    def load(self, version: int) -> StoredModel:
        """Read, verify and self-test a version.

        Raises VersionNotFound, ModelRejected with what is wrong, or StoreError when the
        volume cannot be read, which says nothing about the version.
        """
        with self._reading(version):
            return read_model(self.path(version), self.manifest(version))

    def verify(self, version: int) -> Manifest:
        """Load a version and compare every other file with its digest; raises as `load`."""
        manifest = self.load(version).manifest
        with self._reading(version):
            for name, info in manifest.files.items():
                verify_file(self.path(version), name, info)
        return manifest

    def aliases(self) -> dict[str, int]:
        """Where every alias points; raises StoreError when aliases.json is not readable."""
        path = self.folder / "aliases.json"
        with _translated(f"cannot read {path}"):
            try:
                return decode_aliases(files.read_bounded(path, MAX_BYTES))
            except FileNotFoundError:
                return {}
            except ModelRejected as error:
                raise StoreError(f"cannot read {path}: {error}") from error
            except ValueError as error:
                raise StoreError(f"{path} is {error}") from error

    def resolve(self, alias: str) -> int:
        """The version that an alias points at; raises VersionNotFound or StoreError."""
        version = self.aliases().get(alias)
        if version is None:
            raise VersionNotFound(f"{self.model} has no alias {alias!r}")
        return version

    def history(self) -> list[dict[str, Any]]:
        """Every recorded event, oldest first; a line torn by a crash is left out."""
        path = self.folder / "history.jsonl"
        with _translated(f"cannot read {path}"):
            try:
                return decode_events(path.read_bytes())
            except FileNotFoundError:
                return []

    @contextmanager
    def _reading(self, version: int) -> Iterator[None]:
        """A version that is pruned while it is read is gone, not damaged."""
        with _translated(f"cannot read {self.path(version)}"):
            try:
                yield
            except ModelRejected as error:
                if (self.path(version) / MANIFEST_FILE).exists():
                    raise
                raise VersionNotFound(f"{self.model} has no version {version} now") from error

    # Writing

    @contextmanager
    def lock(self, timeout: float = 60.0) -> Iterator[None]:
        """Hold this model's lock, which every write takes; may be nested.

        Raises StoreBusy when another process keeps it for more than `timeout` seconds.
        """
        with self._mutex:
            if self._lock is not None:
                yield
                return
            with ExitStack() as stack:
                with _translated(f"cannot write to {self.folder}"):
                    files.make_folder(self.folder)
                    stack.enter_context(files.lock_file(self.folder / ".lock", timeout))
                self._lock = stack
                stack.callback(setattr, self, "_lock", None)
                yield

    def publish(
        self,
        draft: Manifest,
        weights: Weights,
        golden_inputs: Array,
        extra_files: Mapping[str, bytes] | None = None,
    ) -> Manifest:
        """Write a new version, whole or not at all, and return its manifest.

        `draft` is a manifest without its version, files and time. `golden_inputs`
        (rows, inputs), scaled, become the self-test. Which version is served does not change.
        Raises StoreError when the volume refuses, ModelRejected when the draft is not valid.
        """
        contents = {**model_files(draft, weights, golden_inputs), **(extra_files or {})}
        infos = {
            name: FileInfo(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in contents.items()
        }
        draft = replace(
            draft, model=self.model, files=infos, golden_rows=len(golden_inputs), created=_now()
        )
        with self.lock(), _translated(f"cannot publish to {self.folder}"):
            self._sweep()
            manifest = replace(draft, version=self._claim())
            try:
                self._write_version(manifest, contents)
            except BaseException:
                # A failed publish leaves nothing behind; a killed one is swept by the next.
                self._remove(manifest.version)
                raise
        return manifest

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
            aliases = self.aliases()
            if aliases.get(alias) != expected:
                raise AliasConflict(
                    f"{alias} points at {aliases.get(alias)}, expected {expected}: look again"
                )
            self.manifest(version)
            self.record(event, version, reason, alias=alias, previous=expected)
            document = encode_aliases(aliases | {alias: version})
            with _translated(f"cannot write to {self.folder}"):
                files.write_atomic(self.folder / "aliases.json", document)

    def prune(self, keep: int) -> list[int]:
        """Remove all but the newest `keep` versions and those with an alias.

        Returns the numbers removed, oldest first. Raises StoreError.
        """
        if keep < 1:
            raise StoreError(f"keep must be at least 1, got {keep}")
        with self.lock():
            aliased = set(self.aliases().values())
            old = [v for v in self.versions()[:-keep] if v not in aliased]
            for version in old:
                self.record("prune", version, f"keeping the newest {keep} and every alias")
                with _translated(f"cannot remove {self.path(version)}"):
                    self._remove(version)
            with _translated(f"cannot write to {self.folder}"):
                self._sweep()
        return old

    def record(self, event: str, version: int, reason: str, **more: Any) -> None:
        """Append one event to the history, with the time and who this process belongs to."""
        entry = {"time": _now().isoformat(), "event": event, "version": version}
        entry |= more | {"actor": actor(), "reason": reason}
        with self.lock(), _translated(f"cannot write to {self.folder}"):
            files.append_line(self.folder / "history.jsonl", encode_event(entry))

    def _claim(self) -> int:
        """Make the folder of the next version; the exclusive mkdir makes the number ours."""
        taken = [int(p.name) for p in self.folder.iterdir() if _VERSION.fullmatch(p.name)]
        version = max(taken, default=0) + 1
        self.path(version).mkdir()
        files.fsync_folder(self.folder)
        return version

    def _write_version(self, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
        # Read back first: what no reader would accept is not written.
        document = manifest.to_json()
        Manifest.from_json(document)
        folder = self.path(manifest.version)
        for name, data in contents.items():
            files.write_atomic(folder / name, data)
        # Before the manifest: a version never exists without a record.
        self.record("publish", manifest.version, manifest.gate.verdict)
        files.write_atomic(folder / MANIFEST_FILE, document)

    def _remove(self, version: int) -> None:
        """Remove a version, its manifest first: it stops to exist at one instant."""
        folder = self.path(version)
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        files.fsync_folder(folder)
        shutil.rmtree(folder)

    def _sweep(self) -> None:
        """Remove what writers that died left: versions without a manifest, temporary files.

        Writers hold the lock while they write, and so does whoever sweeps.
        """
        for path in list(self.folder.iterdir()):
            unborn = _VERSION.fullmatch(path.name) and not (path / MANIFEST_FILE).exists()
            if unborn and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.match(".*.tmp"):
                path.unlink(missing_ok=True)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The seam where the operating system's errors become ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from error
