"""The system that faults are done to, and the record of what was done."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.history.publisher import Publisher
from tests.faults.history.records import Damage, Fault, Outage, Span
from tests.faults.history.replicas import Replica
from tests.support.places import Place
from tests.support.tcp_proxy import Way

__all__ = ["STORE", "Inflict", "Kind", "Record", "System"]

STORE = -1  # the target of faults that are not done to one replica


@dataclass
class Record:
    """What was done, for the history. A span is added when it has ended."""

    faults: list[Fault] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    store_faults: list[Span] = field(default_factory=list)
    alias_faults: list[Span] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def outage(self, replica: int) -> Iterator[None]:
        """Let a replica fail calls within."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.outages.append(Outage(began=began, ended=time.monotonic(), replica=replica))

    @contextmanager
    def damage(self, version: int, unread: bool) -> Iterator[None]:
        """Let a version be refused within."""
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self.damages.append(Damage(began=began, ended=ended, version=version, unread=unread))

    @contextmanager
    def span(self, spans: list[Span]) -> Iterator[None]:
        """Add the time within to `store_faults` or `alias_faults`."""
        began = time.monotonic()
        try:
            yield
        finally:
            spans.append(Span(began=began, ended=time.monotonic()))


@dataclass(kw_only=True)
class System:
    """Replicas on one store, the ways to and from them, and a publisher.

    Attributes:
        replicas: the servers, by number.
        ways: the way to each.
        publisher: makes new champions.
        place: the store's bytes.
        due_seconds: time that two polls of a replica take, with what they read.
        bucket_ways: the ways from each replica, and last from the publisher, to the object store;
            none for a volume.
        volume: the volume's folder; None for an object store, and where it cannot be filled.
        clocks: by replica, the file that says how far its clock is off.
        record: what was done.

    """

    replicas: Sequence[Replica]
    ways: Sequence[Way]
    publisher: Publisher
    place: Place
    due_seconds: float
    bucket_ways: Sequence[Way] = ()
    volume: Path | None = None
    clocks: dict[int, Path] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    done: threading.Event = field(default_factory=threading.Event)


Inflict = Callable[[System, int, random.Random], AbstractContextManager[object]]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: its name.
        inflict: does it to a target on entry, and undoes it on exit.
        targets: what it can be done to, numbers of replicas or STORE; none where it cannot be done.

    """

    name: str
    inflict: Inflict
    targets: Callable[[System], Sequence[int]]
