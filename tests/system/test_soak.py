"""A server with workers under constant load, while versions change and workers are killed."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.processes import children
from tests.support.system import MakeCallers, Resident
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("MLPSERVE_SOAK_SECONDS", "45"))
PUBLISH_EVERY, KILL_EVERY = 5.0, 20.0
OPEN, LISTENING = "01", "0A"  # states of a socket in /proc/net/tcp
GROWTH = 1.05
RESTARTED = 8 * 2**20  # bytes: what the place in memory of a process that was replaced may differ


@pytest.mark.slow
def test_versions_change_and_workers_die_under_load_without_a_failed_call(
    store: Store,
    workers: tuple[str, int],
    publish: Callable[[], int],
    make_callers: MakeCallers,
    resident: Resident,
) -> None:
    publish()
    address, pid = workers
    with Client(address) as client:
        client.wait_until_ready(timeout=20)
    # The kernel spreads connections over those who listen.
    eventually(lambda: [sockets(c, address, LISTENING) > 0 for c in children(pid)] == [True, True])
    callers = make_callers(address, threads=64)
    kills, published, memory = 0, 1, []
    connections: list[int] = []
    started = last_kill = last_publish = time.monotonic()
    with callers:
        while (now := time.monotonic()) - started < SECONDS:
            if now - last_publish > PUBLISH_EVERY:
                publish()
                published, last_publish = published + 1, now
            if now - last_kill > KILL_EVERY:
                connections = connections or [
                    sockets(child, address, OPEN) for child in children(pid)
                ]
                os.kill(random.Random(kills).choice(children(pid)), signal.SIGKILL)
                kills, last_kill = kills + 1, now
            memory.append(sum(map(resident, children(pid))))
            time.sleep(0.25)
        callers.wait_for(store.aliases()["champion"])
    # From a third on there are as many versions in memory as there ever will be.
    early = median(memory[len(memory) // 3 : len(memory) // 2])
    late = median(memory[-len(memory) // 6 :])
    versions = {version for _, version, _ in callers.answers}
    print(
        f"\n{SECONDS:.0f} s: {len(callers.answers)} calls by {sum(connections)} connections, "
        f"{len(callers.failures)} failed, {len(versions)} of {published} versions answered, "
        f"{kills} workers killed; {early / 2**20:.0f} MiB in the workers after a third, "
        f"{late / 2**20:.0f} at the end, at most {max(memory) / 2**20:.0f}"
    )
    assert callers.failures == []
    assert callers.differing(store) == []
    assert kills >= 1
    assert len(connections) == 2
    assert all(connections), "one worker took every connection"
    assert late <= early * GROWTH + RESTARTED
    assert len(versions) >= published - 1


def sockets(pid: int, address: str, state: str) -> int:
    """How many sockets in this state, of this address, the process has."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table.splitlines()[1:]]
    ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == state}
    return sum(str(fd.readlink()) in ours for fd in Path(f"/proc/{pid}/fd").iterdir())
