"""A drop folder: labelled .npz files that anybody puts there, used by the next training.

Each file is checked before any of it is used. A file that is still being written is left for the
next training; one that cannot be used is moved into `.rejected`, with the reason beside it. Others
may write to the folder, so no symbolic link in it is followed.
"""

import errno
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlpserve_model.process.tables import plain
from mlpserve_model.store.atomic_files import Directory, UnusableFile
from mlpserve_trainer.datasets.dataset import Dataset, Inputs, Labels
from mlpserve_trainer.datasets.drop_rows import check_header, parsed
from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.datasets.npz import check_size
from mlpserve_trainer.datasets.npz_reader import NotAnArchive, NpzReader
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import open_data

__all__ = ["DroppedFile", "read_drop", "read_drops"]

REJECTED = ".rejected"
# A file that changed within the last seconds may still be being written: it has to stay unchanged.
SETTLE_SECONDS = 2.0
# Some writers pause, and only the end of an archive shows that it is whole.
UNFINISHED_SECONDS = 60.0
MAX_FILE_BYTES = 2**30
MAX_NAME_BYTES = 120  # of a file moved aside: its reason needs a longer name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DroppedFile:
    """The rows of one file: inputs (n, *input_shape), labels (n,), and its sha256 in hex."""

    name: str
    sha256: str
    inputs: Inputs
    labels: Labels


@dataclass(frozen=True)
class FileStamp:
    """What changes when a file is written: its size, time of change (ns) and inode."""

    size: int
    changed: int
    inode: int

    @property
    def age(self) -> float:
        """Seconds since the file changed, by this machine's clock."""
        return time.time() - self.changed / 1e9


def read_drops(
    folder: Path, first: Dataset, only: frozenset[str] | None = None, limit: int | None = None
) -> list[DroppedFile]:
    """Read every file of a drop folder that fits the first source; move aside what does not.

    Args:
        folder: the drop folder.
        first: the source that says which rows and labels fit.
        only: the sha256 of the files to use, the others are left alone; None for all there are.
        limit: the bytes that all rows may take, those of `first` among them; None for what this
            machine or container allows.

    Returns:
        The files in the order of their digests, equal ones once: names do not matter.

    Raises:
        DataError: the folder cannot be listed.

    """
    drops: dict[str, DroppedFile] = {}
    limit = memory_limit() if limit is None else limit
    room = limit - first.inputs.nbytes
    with _readable(folder):
        opened = Directory(folder)
    with opened:
        with _readable(folder):
            names = sorted(e.name for e in opened.entries() if _is_meant(e.name))
        reader = _Reader(opened, first, only, limit)
        for name, stamp in _settled(opened, names):
            drop = reader.read(name, stamp, room)
            if drop and drop.sha256 in drops:
                other = drops[drop.sha256].name
                logger.info("file used once", extra={"file": plain(name), "same_as": plain(other)})
            elif drop:
                drops[drop.sha256] = drop
                room -= drop.inputs.nbytes + drop.labels.nbytes
    return [drops[digest] for digest in sorted(drops)]


def read_drop(path: Path, first: Dataset) -> DroppedFile:
    """Read one file that the user named, whose rows fit the first source.

    Raises:
        NotAnArchive: the file is not a whole .npz.
        DataError: its rows do not fit, or it cannot be read.

    """
    with open_data(path) as stream:
        shown = plain(str(path))
        reader = NpzReader(stream, shown)
        check_size(reader, shown, memory_limit())
        return DroppedFile(path.name, _sha256(stream), *parsed(reader, shown, first))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _is_meant(name: str) -> bool:
    """Return True for .npz files that are not hidden.

    A writer that uses another name, or a hidden one, and renames, is never read too early.
    """
    return name.lower().endswith(".npz") and not name.startswith(".")


def _sha256(stream: IO[bytes]) -> str:
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # a file


def _shown(folder: Directory, name: str) -> str:
    return plain(str(folder.path / name))


def _stamp(folder: Directory, name: str) -> FileStamp | None:
    with suppress(OSError):
        found = folder.stat(name)
        if found is not None:
            return FileStamp(found.st_size, found.st_mtime_ns, found.st_ino)
    return None


def _settled(folder: Directory, names: Sequence[str]) -> Iterator[tuple[str, FileStamp]]:
    """Give the files that nobody is writing, oldest first."""
    before = {name: _stamp(folder, name) for name in names}
    # In both directions: the clock of a volume may be ahead of ours.
    if any(stamp and stamp.age < SETTLE_SECONDS for stamp in before.values()):
        time.sleep(SETTLE_SECONDS)
    settled = []
    for name, stamp in before.items():
        if stamp and _stamp(folder, name) == stamp:
            settled.append((name, stamp))
        else:
            _leave(_shown(folder, name), "is being written")
    # A new file never takes the place of older ones in memory.
    yield from sorted(settled, key=lambda item: item[1].changed)


@dataclass(frozen=True)
class _Reader:
    """Reads the files of one folder for one training; `limit` is what all rows may take, bytes."""

    folder: Directory
    first: Dataset
    only: frozenset[str] | None
    limit: int

    def read(self, name: str, stamp: FileStamp, room: int) -> DroppedFile | None:
        """Read a file that takes at most `room` bytes; None where it is not used."""
        shown = _shown(self.folder, name)
        try:
            drop = self._read(name, shown, room)
        except (NotAnArchive, DataError, UnusableFile, OSError) as error:
            if reason := self._may_become_better(name, stamp, error):
                _leave(shown, reason)
            else:
                _reject(self.folder, name, str(error))
            return None
        if self._has_changed(name, stamp):
            _leave(shown, "is being written")
            return None
        return drop

    def _has_changed(self, name: str, stamp: FileStamp) -> bool:
        return _stamp(self.folder, name) != stamp

    def _may_become_better(self, name: str, stamp: FileStamp, error: Exception) -> str:
        """Return why a file that cannot be used may be of use to the next training; "" if not."""
        if (of_volume := _of_volume(error)) is not None:
            return f"cannot be read ({of_volume.strerror})"
        if self._has_changed(name, stamp):
            return "is being written"
        is_new = stamp.age < UNFINISHED_SECONDS
        return "is not whole yet" if is_new and isinstance(error, NotAnArchive) else ""

    def _read(self, name: str, shown: str, room: int) -> DroppedFile | None:
        with self.folder.open(name) as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise DataError(f"{shown} has more than {MAX_FILE_BYTES} bytes: split it")
            sha256 = _sha256(file)
            if self.only is not None and sha256 not in self.only:
                return None
            reader = NpzReader(file, shown)
            needed = check_size(reader, shown, self.limit)
            check_header(reader, shown, self.first)
            if needed > room:
                _leave(shown, f"needs {needed} bytes beside the other rows, and {room} are left")
                return None
            rows, labels = parsed(reader, shown, self.first)
            return DroppedFile(name, sha256, rows, labels)


def _of_volume(error: Exception) -> OSError | None:
    """Return what the volume said, if it is not the file that cannot be read."""
    if isinstance(error, OSError):
        return error
    cause = error.__cause__ if isinstance(error, DataError) else None
    # A damaged archive says to read at a place that is none.
    return cause if isinstance(cause, OSError) and cause.errno != errno.EINVAL else None


def _leave(shown: str, why: str) -> None:
    logger.warning("file left for the next training", extra={"file": shown, "reason": why})


def _reject(folder: Directory, name: str, reason: str) -> None:
    """Move a file aside with the reason; where that fails, log it and go on without the file."""
    logger.error("file left out", extra={"file": plain(name), "reason": reason})
    try:
        with folder.folder(REJECTED, make=True) as rejected:
            target = _free(rejected, name)
            note = f"{target}.reason.txt"
            # The reason first: no file lies there without one.
            rejected.write(note, f"{reason}\n".encode())
            try:
                folder.rename(name, rejected, target)
            except OSError:
                rejected.remove(note)
                raise
    except (OSError, UnusableFile) as error:
        why = error.strerror if isinstance(error, OSError) else error
        facts = {"file": _shown(folder, name), "reason": str(why)}
        logger.warning("file cannot be moved aside", extra=facts)


def _free(rejected: Directory, name: str) -> str:
    """Return a name for a file and its reason that nothing has there yet."""
    stem = os.fsdecode(os.fsencode(name[:-4])[:MAX_NAME_BYTES])
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (f"{stem}{ending}{name[-4:]}" for ending in endings)
    return next(
        name
        for name in names
        if rejected.stat(name) is None and rejected.stat(f"{name}.reason.txt") is None
    )
