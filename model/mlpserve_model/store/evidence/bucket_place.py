"""The files of a place for reports in an object store, made with conditional puts."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from mlpserve_model.format.errors import CorruptVersion
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.backend import Conflict
from mlpserve_model.store.evidence.place import Content, check_name
from mlpserve_model.store.object_client import Objects

__all__ = ["BucketFiles"]

_REQUESTS = 16
_READ_AHEAD = 256


class BucketFiles:
    """Files in an object store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def __str__(self) -> str:
        return str(self._objects)

    def create(self, name: str, data: bytes) -> bool:
        """As Files says."""
        check_name(name)
        try:
            self._objects.put(name, data)
        except Conflict:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        """As Files says; of writers at the same time, one may fail."""
        check_name(name)
        try:
            self._objects.put(name, data, self._objects.find(name))
        except Conflict as error:
            raise OSError(f"{name} was written meanwhile: try again") from error

    def read(self, name: str, limit: int) -> bytes:
        """As Files says."""
        check_name(name)
        try:
            return self._objects.get(name, limit).data
        except CorruptVersion as error:
            raise UnusableFile(str(error)) from error

    def contents(self, folder: str, names: Iterable[str], limit: int) -> Iterator[Content]:
        """As Files says: several requests at once, since each waits for the network."""

        def content(name: str) -> Content | None:
            try:
                return name, self.read(f"{folder}/{name}", limit)
            except UnusableFile as error:
                return name, error
            except FileNotFoundError:
                return None

        waiting = iter(names)
        with ThreadPoolExecutor(_REQUESTS) as pool:
            # Not all names at once: what is read waits in memory until it is taken.
            while batch := list(islice(waiting, _READ_AHEAD)):
                yield from filter(None, pool.map(content, batch))

    def folders(self, folder: str = "") -> list[str]:
        """As Files says."""
        return sorted(self._objects.folders(folder))

    def names(self, folder: str) -> list[str]:
        """As Files says: one request for every thousand."""
        inside = (entry.name.removeprefix(f"{folder}/") for entry in self._objects.list(folder))
        return sorted(name for name in inside if "/" not in name)
