"""Reading the versioned store: every byte of a version is checked before it is used."""

import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlpserve_model.format.errors import CorruptVersion, StoreError, VersionNotFound
from mlpserve_model.format.manifest import MANIFEST_FILE, MAX_BYTES, NAME, Manifest
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_model.format.records import (
    ALIASES_FILE,
    HISTORY_FILE,
    decode_aliases,
    decode_events,
    recently_published,
    recorded_digests,
)
from mlpserve_model.format.version_files import StoredModel, compare, read_model, read_verified
from mlpserve_model.store.backend import Backend
from mlpserve_model.store.folder_backend import FolderBackend
from mlpserve_model.store.location import Bucket, missing_client, parse_location

__all__ = ["StoreReader", "translated"]

# A history is never read into more memory than this.
_MAX_HISTORY_BYTES = 2**30
# Room for the hundred events that `recently_published` looks at, and for more.
_END_BYTES = 2**16


class StoreReader:
    """Reads the versions of one model below a root, which need not exist yet.

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
        self._recorded: dict[int, str | None] = {}  # what the history says of each number
        self.last_seen: StoreReader | None = None  # what is kept of it on this machine, if anything

    def __str__(self) -> str:
        return str(self._backend)

    @property
    def folder(self) -> Path:
        """The model's folder; raises StoreError for an object store, which has none."""
        if not isinstance(self.root, Path):
            raise StoreError(f"{self.root} is not a folder")
        return self.root / self.model

    def path(self, version: int) -> Path:
        """Return the folder of a version, whether or not it exists; raises as `folder`."""
        return self.folder / str(version)

    def exists(self) -> bool:
        """Return True if there is a place for this model, even one without versions."""
        with translated(f"cannot list {self._backend}"):
            return self._backend.exists()

    def versions(self) -> list[int]:
        """Return the numbers of all versions, oldest first; none when there is no store yet."""
        return [version for version, _ in self.newest()][::-1]

    def newest(self, below: float = math.inf) -> Iterator[tuple[int, Hashable]]:
        """Give the number and the stamp of each version below a number, newest first, lazily."""
        with translated(f"cannot list {self._backend}"):
            yield from self._backend.newest(below)

    def stamp(self, version: int) -> Hashable:
        """Return what changes when the version's manifest is replaced, None if there is none.

        A stamp is cheap to get. Equal stamps mean the same manifest; when they differ, only reading
        it tells.
        """
        with translated(f"cannot examine {self._backend}/{version}"):
            return self._backend.stamp(version)

    def contents_stamp(self, version: int) -> Hashable:
        """Return what changes when any file of a version is replaced; raises StoreError."""
        with translated(f"cannot examine {self._backend}/{version}"):
            return self._backend.contents_stamp(version)

    def manifest(self, version: int) -> Manifest:
        """Return the checked manifest of a version.

        Raises VersionNotFound, CorruptVersion for a manifest that is wrong or is not the one that
        was published, or StoreError, also where the store itself is not there.
        """
        name = f"{version}/{MANIFEST_FILE}"
        with translated(f"cannot read {self._backend}/{name}"):
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

        The history is read again for a number that it did not have, and before a rejection: its
        end, which has what is new, and all of it where that does not agree.
        """
        version, digest = manifest.version, manifest.own_digest
        recorded = self._recorded  # which another thread may replace meanwhile
        if recorded.get(version, "") not in (digest, None):
            end = self._history(last=_END_BYTES)
            recorded = recently_published(end)
            if recorded.get(version, "") not in (digest, None):
                recorded = recorded_digests(end if len(end) < _END_BYTES else self._history())
            self._recorded = recorded
        expected = recorded.get(version) or digest
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

    def aliases_stamp(self) -> Hashable:
        """Return what changes when the aliases do, None if only reading them shows that."""
        return self._backend.file_stamp(ALIASES_FILE)

    def aliases(self) -> dict[str, int]:
        """Return where every alias points; raises StoreError when aliases.json is not readable."""
        return self._aliases()[0]

    def resolve(self, alias: str) -> int:
        """Return the version that an alias points at; raises VersionNotFound or StoreError."""
        version = self.aliases().get(alias)
        if version is None:
            raise VersionNotFound(f"{self.model} has no alias {alias!r}")
        return version

    def history(self) -> list[dict[str, Any]]:
        """Return every recorded event, oldest first; a line torn by a crash is left out."""
        return decode_events(self._history())

    def _history(self, last: int | None = None) -> bytes:
        """Return the bytes of the history, or the last ones, which may begin within a line."""
        what = f"{self._backend}/{HISTORY_FILE}"
        with translated(f"cannot read {what}"):
            try:
                return self._backend.read(HISTORY_FILE, _MAX_HISTORY_BYTES, last)
            except FileNotFoundError:
                return b""
            except CorruptVersion as error:
                raise StoreError(f"cannot read {what}: {error}") from error

    def _aliases(self) -> tuple[dict[str, int], bytes | None]:
        """Return the aliases, and the file's bytes if there is one."""
        what = f"{self._backend}/{ALIASES_FILE}"
        with translated(f"cannot read {what}"):
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
        """Turn CorruptVersion into VersionNotFound if the version was pruned while it was read."""
        with translated(f"cannot read {self._backend}/{version}"):
            try:
                yield
            except CorruptVersion as error:
                if self._backend.stamp(version) is not None:
                    raise
                raise VersionNotFound(f"{self.model} has no version {version} now") from error


def _open(root: Path | Bucket, model: str) -> Backend:
    if isinstance(root, Path):
        return FolderBackend(root / model)
    # Imported here: a store on a volume needs no client of object stores.
    try:
        from mlpserve_model.store.object_backend import open_backend
    except ModuleNotFoundError as error:
        raise missing_client(root, error) from error
    return open_backend(root, model)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the errors of file systems and networks into StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from error
