"""A server with workers under constant load, while versions change and workers are killed."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpserve_client import Client

SECONDS = float(os.environ.get("MLPSERVE_SOAK_SECONDS", "45"))
PUBLISH_EVERY, KILL_EVERY = 5.0, 20.0


@pytest.mark.slow
def test_versions_change_and_workers_die_under_load_without_a_failed_call(
    store: Any,
    workers: Any,
    publish: Callable[[], int],
    make_callers: Any,
    resident: Callable[[int], int],
) -> None:
    publish()
    address, pid = workers
    with Client(address) as client:
        client.wait_until_ready(timeout=20)
    callers = make_callers(address, threads=16)
    kills, memory = 0, []
    started = last_kill = last_publish = time.monotonic()
    with callers:
        while (now := time.monotonic()) - started < SECONDS:
            if now - last_publish > PUBLISH_EVERY:
                publish()
                last_publish = now
            if now - last_kill > KILL_EVERY:
                os.kill(random.Random(kills).choice(children(pid)), signal.SIGKILL)
                kills, last_kill = kills + 1, now
            memory.append(sum(map(resident, children(pid))))
            time.sleep(0.25)
        callers.wait_for(store.aliases()["champion"])
    versions = {version for _, version, _ in callers.answers}
    print(
        f"\n{SECONDS:.0f} s: {len(callers.answers)} calls by 16 connections, "
        f"{len(callers.failures)} failed, {len(versions)} versions answered, {kills} workers "
        f"killed; {memory[-1] / 2**20:.0f} MiB in the workers at the end, at most "
        f"{max(memory) / 2**20:.0f}"
    )
    assert callers.failures == []
    assert callers.differing(store) == []
    assert kills >= 1
    assert len(versions) >= SECONDS // PUBLISH_EVERY - 1


def children(pid: int) -> list[int]:
    """The processes that this one has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = path.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        state, parent = rest.rpartition(")")[2].split()[:2]
        if int(parent) == pid and state != "Z":
            found.append(int(number))
    return found
