"""Three servers behind one name: balanced, and following the store and its schedule together."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.support.containers import Load, NewStack, Stack

SERVERS = 3
POLL_SECONDS = 1.0
# Not more than the engine itself takes to answer on a busy machine.
SLACK_SECONDS = 1.0
CALLS = re.compile(r'^mlpserve_calls_total\{.*code="OK".*method="Predict".*\} (\S+)', re.MULTILINE)
# Asked inside the network, where the port is open to Prometheus alone.
SCRAPE = """
import json, socket, urllib.request
found = sorted({entry[4][0] for entry in socket.getaddrinfo("server", 9464)})
read = lambda host: urllib.request.urlopen(f"http://{host}:9464/metrics").read().decode()
print(json.dumps({host: read(host) for host in found}))
"""

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    """The drop folder, which a user of the containers may write to."""
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def stack(new_stack: NewStack, corrections: Path) -> Stack:
    """Three servers and the schedule, every minute."""
    stack = new_stack(
        servers=SERVERS,
        MLPSERVE_CRON="* * * * *",
        MLPSERVE_DATASET="digits+npz:/corrections",
        MLPSERVE_DROP_FOLDER=str(corrections),
        MLPSERVE_MIN_ACCURACY="0.5",
    )
    stack.up("--profile", "schedule")
    return stack


def drop(folder: Path) -> None:
    """Put labelled rows into the drop folder, as a whole file from the first moment."""
    digits = load_digits()
    rows = np.minimum(digits.images[:200].astype(np.uint8) + 1, 16)  # not those of the test part
    np.savez(folder / ".more.npz", X=rows, y=digits.target[:200], maximum=16)
    (folder / ".more.npz").chmod(0o644)
    (folder / ".more.npz").rename(folder / "more.npz")


def ports(stack: Stack) -> list[str]:
    """The servers' addresses, each seen from the host."""
    indices = range(1, SERVERS + 1)
    return [stack.compose("port", "--index", str(i), "server", "50051").strip() for i in indices]


def test_three_servers_share_the_calls_and_follow_schedule_and_rollback(
    stack: Stack, corrections: Path, load_on: type[Load]
) -> None:
    targets = ports(stack)
    assert len(set(targets)) == SERVERS
    first = [stack.served(target) for target in targets]

    drop(corrections)
    load = load_on(f"{stack.name}_default")
    retrained = stack.wait_for(
        lambda: all(stack.served(target) > first[0] for target in targets), 150
    )
    told = load.stop()
    print(f"\nall {SERVERS} serve the schedule's version {retrained:.0f} s after new data came")
    print(f"calls meanwhile: {told['counts']}, the slowest {told['slowest']:.2f} s")
    assert [name for name in told["counts"] if "version" not in name] == []

    stack.compose("stop", "schedule")
    stack.models("rollback", "--to", "1", "--reason", "a test")
    back = stack.wait_for(
        lambda: all(stack.served(target) == 1 for target in targets),
        2 * POLL_SECONDS + SLACK_SECONDS,
    )
    print(f"all {SERVERS} serve version 1 again {back:.2f} s after the rollback")

    counts = scrape(stack)
    print(f"calls answered by each: {counts}")
    assert len(counts) == SERVERS
    assert min(counts.values()) > 0.8 * sum(counts.values()) / SERVERS
    assert sum(counts.values()) == sum(told["counts"].values())


def scrape(stack: Stack) -> dict[str, int]:
    """The calls that each server has answered, by its address."""
    entry = ("--entrypoint", "python", "client", "-c", SCRAPE)
    told = json.loads(stack.compose("run", "--rm", "--no-TTY", *entry).splitlines()[-1])
    return {
        host: sum(int(float(count)) for count in CALLS.findall(text)) for host, text in told.items()
    }


def test_the_schedule_ends_with_0_and_says_how_it_is(stack: Stack) -> None:
    assert stack.inspect("schedule")["State"]["Health"]["Status"] == "healthy"

    stack.compose("stop", "schedule")

    assert stack.inspect("schedule")["State"]["ExitCode"] == 0
