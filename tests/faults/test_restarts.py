"""Servers that restart one after the other at 500 calls a second, and servers that stay away."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.publishing import publish_to
from tests.support.server import READINESS, Process
from tests.support.timed_callers import TimedCallers
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

IMAGES = np.random.default_rng(1).random((16, 3, 4), dtype=np.float32)
GRACE, DRAIN = 5.0, 1.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# The broken twin: it stops at once, and does not say so.
WITHOUT_DRAIN = """
from mlpserve_server.transport.health import Health
from mlpserve_server.transport.readiness import Readiness

Readiness.end = lambda self: None
Health.end_watches = lambda self: None
"""


class Watch:
    """A Watch of a server's readiness: what it was told until its connection ended."""

    def __init__(self, address: str) -> None:
        self.told: list[int] = []
        self._address = address
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_for(lambda: SERVING in self.told, 20)

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            request = health_pb2.HealthCheckRequest(service=READINESS)
            try:
                for answer in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=600):
                    self.told.append(answer.status)
            except grpc.RpcError:
                pass

    def end(self) -> list[int]:
        """Wait until it has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.told


class Replica:
    """A server that can be stopped and started again on its port."""

    def __init__(self, store: Store, before: str = "") -> None:
        self._store, self._before = store, before
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        arguments = ["--store", str(self._store.folder.parent), "--listen", self.address]
        times = ["--drain-seconds", str(DRAIN), "--grace-seconds", str(GRACE)]
        self._server = Process(*arguments, *times, "--workers", "1", before=self._before)
        self.address = self._server.event("listening")["address"]
        self._server.event("serving")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Return the exit code, and the seconds until the process had ended."""
        began = time.monotonic()
        code = self._server.end(how)
        return code, time.monotonic() - began


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models", "mnist")
    publish_to(store)
    return store


@pytest.fixture
def replicas(store: Store) -> Iterator[list[Replica]]:
    replicas = [Replica(store) for _ in range(2)]
    yield replicas
    for replica in replicas:
        replica.stop(signal.SIGKILL)


@pytest.mark.parametrize("restarts", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_restarts_in_turn_fail_no_call_and_are_announced(
    restarts: int, replicas: list[Replica]
) -> None:
    seconds, told = [], []
    with TimedCallers([replica.address for replica in replicas], IMAGES) as callers:
        for number in range(restarts):
            callers.wait_for_more(1000)
            replica = replicas[number % 2]
            watch = Watch(replica.address)
            code, took = replica.stop()
            assert code == 0
            seconds.append(took)
            told.append(watch.end())
            replica.start()
        callers.wait_for_more(1000)
    print(
        f"\n{restarts} restarts at {callers.calls_per_second:.0f} calls/s: {len(callers.answers)} "
        f"calls, {len(callers.failures)} failed; exit within {max(seconds):.1f} s of {DRAIN} s of "
        f"drain and {GRACE} of grace"
    )
    assert callers.failures == []
    assert told == [[SERVING, NOT_SERVING]] * restarts
    assert max(seconds) < DRAIN + GRACE + 10  # the bar is 1: a busy machine starts slowly


def test_a_stop_without_drain_is_caught(store: Store) -> None:
    replica = Replica(store, WITHOUT_DRAIN)
    watch = Watch(replica.address)
    code, _ = replica.stop()
    print(f"\nwithout drain: exit code {code}, a Watch was told {watch.end()}")
    assert watch.end() == [SERVING]


AWAY = [2.0, pytest.param(10.0, marks=pytest.mark.soak)]


@pytest.mark.parametrize("seconds", AWAY)
def test_once_a_server_is_back_its_callers_are_answered_at_once(
    seconds: float, store: Store
) -> None:
    replica = Replica(store)
    try:
        with Client(replica.address) as client:
            assert client.predict(IMAGES[0]).model.version == 1
            replica.stop(signal.SIGKILL)
            failures, until = 0, time.monotonic() + seconds
            while time.monotonic() < until:
                try:
                    client.predict(IMAGES[0], timeout=0.5)
                except Exception:
                    failures += 1
            replica.start()
            back = time.monotonic()
            client.predict(IMAGES[0], timeout=30)
            recovered = time.monotonic() - back
    finally:
        replica.stop(signal.SIGKILL)
    print(f"\naway for {seconds} s: {failures} calls failed, answered {recovered:.2f} s after")
    assert failures
    assert recovered < 10  # the bar is 2
