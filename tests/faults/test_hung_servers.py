"""A server that hangs with its connections open is left within a call's deadline."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.publishing import publish_to

pytestmark = pytest.mark.faults

COMMAND = [str(Path(sys.executable).with_name("mlpserve-server")), "--workers", "1"]
ROW = np.zeros(12, np.uint8)
SECONDS = 25.0  # more than two deadlines of calls


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Two servers by their targets: their processes."""
    publish_to(Store(tmp_path / "models", "mnist"))
    with ExitStack() as stack:
        found: dict[str, int] = {}
        for number in range(2):
            target = f"unix:{tmp_path}/{number}"
            command = [*COMMAND, "--store", str(tmp_path / "models"), "--listen", target]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            found[target] = process.pid
            with Client(target) as client:
                client.wait_until_ready(30)
        yield found


def test_no_call_fails_when_one_of_two_servers_hangs(servers: dict[str, int]) -> None:
    with Client([*servers]) as client:
        client.wait_until_ready(30)
        for _ in range(20):
            client.predict(ROW)
        os.kill(next(iter(servers.values())), signal.SIGSTOP)
        began = time.monotonic()
        calls, longest = 0, 0.0
        while time.monotonic() - began < SECONDS:
            sent = time.monotonic()
            client.predict(ROW)
            calls, longest = calls + 1, max(longest, time.monotonic() - sent)
    print(f"\n{calls} calls answered in {SECONDS:.0f} s, the longest after {longest:.1f} s")
    assert calls > 100
