"""Faults of processes, of their clocks and of the network before them."""

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.faults.history.system import Inflict, Kind, System
from tests.support.faults import flipped
from tests.support.processes import children

__all__ = ["REPLICA_FAULTS"]

_HOURS = 12  # how far clocks jump; certificates stay valid


@contextmanager
def killed(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Kill a replica, and start it again."""
    replica = system.replicas[target]
    with system.record.outage(target):
        replica.kill()
        try:
            yield
        finally:
            replica.start()
        replica.wait_ready()


@contextmanager
def killed_with_cache(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Kill a replica, damage a file that it keeps of the object store, and start it again."""
    with killed(system, target, rng):
        paths = system.replicas[target].cache.rglob("*")
        if kept := sorted(path for path in paths if path.is_file() and path.stat().st_size):
            path = rng.choice(kept)
            path.write_bytes(flipped(path.read_bytes(), rng))
        yield


@contextmanager
def terminated(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Ask a replica to stop, and start it again."""
    replica = system.replicas[target]
    with system.record.outage(target):
        if code := replica.terminate():
            system.record.problems.append(f"replica {target} ended with {code} after SIGTERM")
        yield
        replica.start()
        replica.wait_ready()


@contextmanager
def paused(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Stop the processes of a replica where they are, and let them go on."""
    with system.record.outage(target):
        system.replicas[target].signal(signal.SIGSTOP)
        yield
        system.replicas[target].signal(signal.SIGCONT)


@contextmanager
def worker_killed(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Kill one of a replica's workers: the others answer, so this is no outage."""
    os.kill(rng.choice(children(system.replicas[target].pid)), signal.SIGKILL)
    yield


@contextmanager
def clock_jumped(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Let a replica's clock jump by hours, and back: no outage."""
    system.clocks[target].write_text(f"{rng.choice('+-')}{rng.randint(1, _HOURS)}h")
    yield
    system.clocks[target].write_text("+0")


@contextmanager
def delayed(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Let all that is sent to a replica, and by it, arrive late: no outage."""
    system.ways[target].delay = rng.uniform(0.02, 0.3)
    yield
    system.ways[target].delay = 0.0


@contextmanager
def cut(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Reset the connections to a replica, which takes new ones: no outage."""
    system.ways[target].cut()
    yield


@contextmanager
def unreachable(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Reset the connections to a replica, and refuse new ones."""
    way = system.ways[target]
    with system.record.outage(target):
        way.closed = True
        way.cut()
        yield
        way.closed = False


@contextmanager
def held(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Let nothing through to a replica and from it, on connections that stay open."""
    with system.record.outage(target):
        system.ways[target].held = True
        yield
        system.ways[target].held = False


@contextmanager
def corrupted(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Flip bits in what is sent to a replica and by it; at the end the connections break."""
    way = system.ways[target]
    with system.record.outage(target):
        share = rng.uniform(0.05, 0.5)
        whole = way.to_server, way.to_client
        way.to_server = way.to_client = lambda data: _damaged(data, share, rng)
        yield
        way.to_server, way.to_client = whole
        way.cut()


def _damaged(data: bytes, share: float, rng: random.Random) -> bytes:
    return flipped(data, rng) if rng.random() < share else data


def _all(system: System) -> Sequence[int]:
    return [replica.number for replica in system.replicas]


def _with_cache(system: System) -> Sequence[int]:
    return _all(system) if system.bucket_ways else []


def _with_workers(system: System) -> Sequence[int]:
    return [replica.number for replica in system.replicas if replica.workers > 1]


def _with_clock(system: System) -> Sequence[int]:
    return [*system.clocks]


_ON_ALL: dict[str, Inflict] = {
    "SIGKILL": killed,
    "SIGTERM": terminated,
    "SIGSTOP": paused,
    "network delays": delayed,
    "connections cut": cut,
    "replica unreachable": unreachable,
    "network holds": held,
    "network corrupts": corrupted,
}
REPLICA_FAULTS = [
    *(Kind(name, inflict, _all) for name, inflict in _ON_ALL.items()),
    Kind("SIGKILL, cache damaged", killed_with_cache, _with_cache),
    Kind("worker killed", worker_killed, _with_workers),
    Kind("clock jumps", clock_jumped, _with_clock),
]
