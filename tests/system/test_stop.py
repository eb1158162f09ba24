"""Stopping under load, while another server stands by."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from mlpserve_model import Store
from tests.support.system import MakeCallers, RunServer

ROUNDS = 4


@pytest.mark.slow
def test_stopping_a_server_of_two_workers_under_load_fails_no_call(
    store: Store, publish: Callable[[], int], run_server: RunServer, make_callers: MakeCallers
) -> None:
    publish()
    servers = [run_server("--workers", "2") for _ in range(2)]
    callers = make_callers([address for address, _ in servers], threads=8)
    seconds = []
    with callers:
        callers.wait_for(1)
        for number in range(ROUNDS):
            callers.wait_for_more(2000)
            address, pid = servers[number % 2]
            began = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # the fixture reaps it
            seconds.append(time.monotonic() - began)
            assert end
            assert end.si_status == 0
            servers[number % 2] = run_server("--workers", "2", "--listen", address)
        callers.wait_for_more(2000)
    print(
        f"\n{len(callers.answers)} calls while {ROUNDS} servers of two workers ended, each with 0 "
        f"within {max(seconds):.1f} s: {len(callers.failures)} failed"
    )
    assert callers.failures == []
    assert callers.differing(store) == []
    assert max(seconds) < 20  # --grace-seconds
