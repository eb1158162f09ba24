"""The supervisor polls the store for all of its workers, and sends each what has changed.

A datagram for each poll: it is sent whole or not at all, so that a worker that does not read, or
one that ends, keeps no other waiting. `StoreNews` receives them.
"""

import errno
import json
import socket
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from mlpserve_model import StoreError
from mlpserve_model.format.manifest import NAME
from mlpserve_model.process.choices import are_several, is_served
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.location import Bucket, Location
from mlpserve_model.store.stamps import StampListing, StampReader
from mlpserve_server.lifecycle.store_news import MAX_BYTES

__all__ = ["StoreWatch"]

_NOTHING_KNOWN = b'{"changed": null, "unknown": null, "names": null}'


class _Update(NamedTuple):
    """What a poll of the store has found.

    Attributes:
        changed: The models whose aliases or manifests are others than at the poll before.
        unknown: The models of which this cannot be said.
        names: The names of the models in the store; None if the workers have to list it.

    """

    changed: Collection[str]
    unknown: Collection[str]
    names: Sequence[str] | None


class StoreWatch:
    """Polls a store for several workers.

    Args:
        store: Where the models are.
        patterns: Names and patterns of the models that are served.

    Raises:
        StoreError: The client of the object store is not installed.

    """

    def __init__(self, store: Location, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._named = [pattern for pattern in patterns if NAME.fullmatch(pattern)]
        self._follows_names = len(self._named) < len(patterns)
        several = are_several(patterns)
        self._listing = StampListing(store) if several and isinstance(store, Bucket) else None
        self._names = (self._listing or ModelListing(store)).names
        self._reader = StampReader(store)
        self._known: Mapping[str, Hashable] = {}
        self._lines: dict[int, _Line] = {}  # by worker

    @contextmanager
    def line(self, worker: int) -> Iterator[int]:
        """Yield the descriptor on which a worker that is started meanwhile receives the updates.

        It replaces that of the worker of this number before.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        if before := self._lines.get(worker):
            before.close()
        self._lines[worker] = _Line(ours)
        with closing(theirs):
            yield theirs.fileno()

    def poll(self) -> None:
        """Poll the store once, and send every worker what it does not have yet."""
        if self._listing:
            self._listing.refresh()
        names = self._list()
        stamps = self._stamps({*self._named, *(names or self._known)})
        update = _Update(
            [model for model, stamp in stamps.items() if stamp != self._known.get(model)],
            [model for model, stamp in stamps.items() if stamp is None],
            names,
        )
        self._known = stamps
        for line in [*self._lines.values()]:
            line.send(update)

    def close(self) -> None:
        """Close the lines to the workers."""
        for line in self._lines.values():
            line.close()

    def _list(self) -> list[str] | None:
        """Return the names that patterns match; None if there is no pattern, or no answer."""
        if not self._follows_names:
            return None
        try:
            return [name for name in self._names() if is_served(name, self._patterns)]
        except StoreError:
            return None

    def _stamps(self, models: Collection[str]) -> Mapping[str, Hashable]:
        listing = self._listing
        if listing and (listing.is_known or listing.failed):
            return {model: listing.of(model) for model in models}
        return self._reader.read(models)


class _Line:
    """The line to one worker, and what that has yet to receive."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_BYTES // 2)  # Linux doubles it
        self._socket = line
        self._changed: set[str] | None = None  # None: anything may have
        self._names: Sequence[str] | tuple[()] | None = ()  # which no list equals

    @property
    def is_closed(self) -> bool:
        """Whether the worker has ended, as far as is known."""
        return self._socket.fileno() < 0

    def send(self, update: _Update) -> None:
        """Send an update, with those before that could not be sent, while the worker is there."""
        if self.is_closed:
            return
        if self._changed is not None:
            self._changed.update(update.changed)
        message: dict[str, Any] = {
            "changed": None if self._changed is None else sorted(self._changed),
            "unknown": sorted(update.unknown),
        }
        if update.names != self._names:
            message["names"] = update.names
        try:
            self._send(message)
        except BlockingIOError:
            return  # it is behind, and receives all of it with a later update
        except OSError:
            self.close()
        self._changed, self._names = set(), update.names

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._socket.send(json.dumps(message).encode())
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            # Too many for a datagram: the worker polls the store itself this time.
            self._socket.send(_NOTHING_KNOWN)
