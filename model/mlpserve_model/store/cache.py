"""A local copy of an object store's versions, for a start while the store is unreachable."""

import logging
from contextlib import suppress
from pathlib import Path

from mlpserve_model.format.errors import CorruptVersion, StoreBusy, StoreError, VersionNotFound
from mlpserve_model.format.manifest import MANIFEST_FILE, Manifest
from mlpserve_model.format.records import ALIASES_FILE, encode_aliases
from mlpserve_model.format.version_files import StoredModel, read_model
from mlpserve_model.store.folder_backend import FolderBackend
from mlpserve_model.store.location import Bucket
from mlpserve_model.store.reader import StoreReader

__all__ = ["CachedStore"]

# The workers of a server share the folder, and so may servers of one machine.
_LOCK_SECONDS = 5.0

log = logging.getLogger(__name__)


class CachedStore(StoreReader):
    """A store whose versions, once verified, are read from a folder of this machine.

    The folder has the layout of a store, so that `last_seen` is one too. Its versions are verified
    whenever they are read; `keep` of those without an alias stay. A folder that cannot be written
    is logged once and changes nothing else.
    """

    def __init__(self, root: Bucket, model: str, folder: Path, keep: int) -> None:
        super().__init__(root, model)
        self._folder = Path(folder, root.scheme, root.name, root.prefix)
        self._kept = StoreReader(self._folder, model)
        self.last_seen = self._kept
        self._keep_count = keep
        self._seen_aliases: dict[str, int] | None = None
        self._warned = False

    def aliases(self) -> dict[str, int]:
        """As StoreReader says; a copy is kept for `last_seen`."""
        aliases = super().aliases()
        # No aliases where there were some: the store is away, and its copy stays.
        if aliases and aliases != self._seen_aliases:
            self._keep({ALIASES_FILE: encode_aliases(aliases)})
            self._seen_aliases = aliases
        return aliases

    def manifest(self, version: int) -> Manifest:
        """As StoreReader says; the copy's while the store cannot be read."""
        try:
            return super().manifest(version)
        except (VersionNotFound, CorruptVersion):
            raise
        except StoreError:
            with suppress(StoreError):
                return self._kept.manifest(version)
            raise

    def load(self, version: int) -> StoredModel:
        """As StoreReader says; from the folder if it holds the same version."""
        manifest = self.manifest(version)
        if kept := self._find_kept(manifest):
            return kept
        contents: dict[str, bytes] = {}

        def read(name: str, limit: int) -> bytes:
            contents[name] = self._backend.read(f"{version}/{name}", limit)
            return contents[name]

        with self._reading(version):
            model = read_model(read, manifest)
        named = {f"{version}/{name}": data for name, data in contents.items()}
        # The manifest last: without it, an interrupted copy is not a version.
        self._keep(named | {f"{version}/{MANIFEST_FILE}": manifest.document}, manifest)
        return model

    def _find_kept(self, manifest: Manifest) -> StoredModel | None:
        """Return the version with this manifest from the folder, None if it is not there whole."""
        with suppress(StoreError):
            model = self._kept.load(manifest.version)
            return model if model.manifest == manifest else None
        return None

    def _keep(self, contents: dict[str, bytes], manifest: Manifest | None = None) -> None:
        """Write these files into the folder, and make room when they are a version."""
        folder = FolderBackend(self._kept.folder)
        try:
            with folder.lock(_LOCK_SECONDS):
                if manifest is None:
                    folder.keep(None, contents)
                elif self._find_kept(manifest) is None:
                    folder.keep(manifest.version, contents)
                    folder.remove(self._to_remove(manifest.version))
        except (OSError, StoreBusy) as error:
            if not self._warned:
                self._warned = True
                reason = getattr(error, "strerror", None) or str(error)
                fields = {"folder": str(self._folder), "reason": reason}
                log.warning("the cache cannot be written", extra=fields)

    def _to_remove(self, newest: int) -> list[int]:
        aliased = {newest, *(self._seen_aliases or {}).values()}
        others = [v for v in self._kept.versions() if v not in aliased]
        return others[: len(others) - self._keep_count] if self._keep_count < len(others) else []
