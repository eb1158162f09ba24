"""One model's versions in a folder of a shared volume.

Readers need no lock and no write access. Writers agree through one lock file, which the
kernel frees when its holder dies.
"""

import hashlib
import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from mlpserve_model.format.manifest import MANIFEST_FILE, FileInfo
from mlpserve_model.store import atomic_files as files
from mlpserve_model.store.backend import VERSION, Conflict

__all__ = ["Folder"]


class Folder:
    """The Backend on a file system; the folder need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def versions(self) -> list[int]:
        """As Backend says; none where there is no folder."""
        try:
            names = [entry.name for entry in os.scandir(self.path)]
        except FileNotFoundError:
            return []
        return [n for n in sorted(int(n) for n in names if VERSION.fullmatch(n)) if self.holds(n)]

    def holds(self, version: int) -> bool:
        """As Backend says."""
        return (self._of(version) / MANIFEST_FILE).exists()

    def read(self, name: str, limit: int) -> bytes:
        """As Backend says; ModelRejected too for what is no regular file."""
        return files.read_bounded(self.path / name, limit)

    def measure(self, name: str) -> FileInfo:
        """As Backend says; ModelRejected for what is no regular file."""
        with files.open_regular(self.path / name) as file:
            return FileInfo(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """As Backend says, making the folder."""
        files.make_folder(self.path)
        return files.lock_file(self.path / ".lock", timeout)

    def sweep(self) -> None:
        """Remove versions without a manifest, and temporary files.

        Writers hold the lock while they write, and so does whoever sweeps.
        """
        for path in list(self.path.iterdir()):
            unborn = VERSION.fullmatch(path.name) and not (path / MANIFEST_FILE).exists()
            if unborn and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.match(".*.tmp"):
                path.unlink(missing_ok=True)

    def claim(self) -> int:
        """Make the folder of the next version; the exclusive mkdir makes the number ours."""
        taken = [int(p.name) for p in self.path.iterdir() if VERSION.fullmatch(p.name)]
        version = max(taken, default=0) + 1
        self._of(version).mkdir()
        files.fsync_folder(self.path)
        return version

    def write(self, name: str, data: bytes) -> None:
        """As Backend says."""
        files.write_atomic(self.path / name, data)

    def replace(self, name: str, data: bytes, before: bytes | None) -> None:
        """As Backend says; nobody else writes while we hold the lock."""
        path, now = self.path / name, None
        with suppress(FileNotFoundError):
            now = path.read_bytes()
        if now != before:
            raise Conflict(name)
        files.write_atomic(path, data)

    def append(self, name: str, line: bytes) -> None:
        """As Backend says."""
        files.append_line(self.path / name, line)

    def discard(self, version: int) -> None:
        """As Backend says: a failed publication leaves nothing; one killed is swept."""
        self.remove(version)

    def remove(self, version: int) -> None:
        """As Backend says."""
        folder = self._of(version)
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        files.fsync_folder(folder)
        shutil.rmtree(folder)

    def _of(self, version: int) -> Path:
        return self.path / str(version)
