"""Class names: they come with the answer; unknown ones are replaced by the labels' numbers."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from mlpserve.v1 import model_pb2
from mlpserve_client._errors import ClientClosedError, MlpserveError, ServerError
from mlpserve_client._results import ModelRef, ModelVersion

Names: TypeAlias = tuple[str, ...]
Describe: TypeAlias = Callable[
    [model_pb2.ModelSelector, float | None], Awaitable[ModelVersion]
]  # a version and a timeout in seconds

_Names = TypeVar("_Names", bound=Sequence[str])

_MAX_VERSIONS = 64  # whose names are remembered


class KnownNames(NamedTuple):
    """Names that a server sent, and their hash for `known_class_names`."""

    names: Names = ()
    hash: int = 0


def names_hash(names: Sequence[str]) -> int:
    """Return the value of `known_class_names` for these names.

    It is 0, as for none, where a name has a newline: others could give the same hash.
    """
    if any("\n" in name for name in names):
        return 0
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "little")


class ClassNames:
    """Remembers class names by version. Threads and tasks may share it.

    A request carries the hash of the names that the client has, and the answer brings names
    if they differ. Older servers never send names, so the client calls GetModelVersion there.
    """

    def __init__(self, describe: Describe) -> None:
        self.known = KnownNames()
        self._describe = describe
        self._by_version: dict[ModelRef, Names] = {}
        self._old_server = False  # one that sends no names has answered

    async def resolve(
        self,
        ref: ModelRef,
        sent: Sequence[str],
        known: KnownNames,
        classes: int,
        timeout: float | None,
    ) -> Names:
        """Return the class names of the version that answered, one for each class.

        Args:
            ref: the version.
            sent: the names in the answer, if any.
            known: the names whose hash was in the request.
            classes: number of classes in the answer.
            timeout: seconds, for a call of GetModelVersion.

        Raises:
            ServerError: the server's names are not those of so many classes.

        """
        if sent:
            _check(sent, classes)
            return self._learn(ref, tuple(sent))
        names = self._by_version.get(ref)
        if names is not None:
            return _check(names, classes)
        self._old_server |= not known.names
        # No names: the server has those that the request said. An older server would send
        # none either, so nothing is concluded once one has answered.
        if not self._old_server and len(known.names) == classes:
            return self._remember(ref, known.names)
        return _check(await self._fetch(ref, classes, timeout), classes)

    async def of(self, ref: ModelRef, timeout: float | None) -> Names:
        """Return the class names of a version; none where it cannot be described."""
        names = self._by_version.get(ref)
        return names if names is not None else await self._fetch(ref, 0, timeout)

    async def _fetch(self, ref: ModelRef, classes: int, timeout: float | None) -> Names:
        numbers = tuple(map(str, range(classes)))
        try:
            selector = model_pb2.ModelSelector(version=ref.version, name=ref.name)
            found = await self._describe(selector, timeout)
        except ClientClosedError:
            raise
        except MlpserveError:
            return numbers  # it may have reached a replica that does not have the version
        # Another digest: the version number was used again, for other weights.
        return self._remember(ref, found.class_names) if found.ref == ref else numbers

    def _learn(self, ref: ModelRef, names: Names) -> Names:
        if names != self.known.names:
            self.known = KnownNames(names, names_hash(names))
        return self._remember(ref, self.known.names)

    def _remember(self, ref: ModelRef, names: Names) -> Names:
        if len(self._by_version) >= _MAX_VERSIONS:
            self._by_version.clear()
        self._by_version[ref] = names
        return names


def _check(names: _Names, classes: int) -> _Names:
    if len(names) != classes:
        raise ServerError(
            f"the server answered probabilities of {classes} classes for a model of {len(names)}"
        )
    return names
