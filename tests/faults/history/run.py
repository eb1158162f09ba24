"""A run: clients and a publisher at work while the nemesis does what is planned."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlpserve_client import MlpserveError, Tls
from mlpserve_model import CHAMPION, CorruptVersion, Store
from tests.faults.history.callers import Caller, recorded
from tests.faults.history.checker import violations
from tests.faults.history.nemesis import Nemesis, Step
from tests.faults.history.publisher import REJECTED
from tests.faults.history.records import History
from tests.faults.history.replicas import Replica
from tests.faults.history.system import Kind, Record, System

__all__ = ["findings", "run"]

_CLIENTS = 4
_PUBLISH_SECONDS = 1.5
_CALM_SECONDS = 2.0  # of calls after the last version is due


def run(system: System, steps: Sequence[Step], kinds: Sequence[Kind], tls: Tls) -> History:
    """Run what is planned, and return its history; the replicas have ended then."""
    publisher, calling = system.publisher, threading.Event()
    publisher.publish(REJECTED)
    publisher.publish()
    for replica in system.replicas:
        replica.start()
    for replica in system.replicas:
        replica.wait_ready()
    callers = [
        Caller(
            number,
            [way.door() for way in system.ways],
            system.ways[number % len(system.ways)].door(),
            number % len(system.ways),
            tls,
            publisher.releases,
        )
        for number in range(_CLIENTS)
    ]
    clients = [threading.Thread(target=caller.run, args=(calling,)) for caller in callers]
    publishing = threading.Thread(target=publisher.run, args=(_PUBLISH_SECONDS, system.done))
    with _until(calling, clients):
        with _until(system.done, [publishing]):
            Nemesis(system, kinds).run(steps)
        for replica in system.replicas:
            _wait_ready(replica, system.record)
        healed = time.monotonic()
        calling.wait(system.due_seconds + _CALM_SECONDS)
    record = system.record
    for replica in system.replicas:
        if code := replica.stop():
            record.problems.append(f"replica {replica.number} ended with {code}")
    return History(
        calls=recorded(callers), releases=publisher.releases, healed=healed,
        last_good=publisher.store.aliases()[CHAMPION], due_seconds=system.due_seconds,
        faults=record.faults, outages=record.outages, damages=record.damages,
        store_faults=record.store_faults, alias_faults=record.alias_faults,
    )  # fmt: skip


def _wait_ready(replica: Replica, record: Record) -> None:
    try:
        replica.wait_ready()
    except MlpserveError as error:
        record.problems.append(f"replica {replica.number} is not ready at the end: {error}")


@contextmanager
def _until(done: threading.Event, threads: Sequence[threading.Thread]) -> Iterator[None]:
    """Run threads within, which end when `done` is set, also when something else fails."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def findings(system: System, history: History) -> list[str]:
    """Return all that a run has shown to be wrong: with answers, programs and the store."""
    lines = [line for replica in system.replicas for line in replica.our_faults]
    damaged = [fault for version in system.publisher.store.versions()
               if (fault := _fault_of(system.publisher.store, version))]  # fmt: skip
    return [*violations(history), *system.record.problems, *lines, *damaged]


def _fault_of(store: Store, version: int) -> str:
    try:
        store.verify(version)
    except CorruptVersion as error:
        return f"version {version} is damaged at the end: {error}"
    return ""
