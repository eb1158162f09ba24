"""Servers that stop, die, restart and overload: what callers of one client see of it."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from mlpserve_client import (
    AsyncClient,
    Client,
    MlpserveError,
    _channel,
)
from mlpserve_client.testing import ModelServer

LARGE = np.zeros((600, 784), dtype=np.uint8)  # more than gRPC keeps for a retry by default
IMAGE = np.zeros((28, 28), dtype=np.uint8)


class Process:
    """A server in a process of its own, which can be killed and restarted."""

    def __init__(self, store: Path, address: str) -> None:
        self.address = address
        self._arguments = ["--store", str(store), "--listen", address, "--poll-seconds", "0.05"]
        self._log = store.with_name(f"{address.rpartition(':')[2]}.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        run = "import sys; from mlpserve_server.cli import main; sys.exit(main())"
        command = [sys.executable, "-X", "faulthandler", "-c", run, *self._arguments]
        # One worker: then the process is all there is to kill.
        environ = {**os.environ, "MLPSERVE_WORKERS": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, env=environ)
        with Client(self.address) as client:
            client.wait_until_ready(30)

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self._process
        self._process.send_signal(how)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # then it says where each thread is
            self._process.wait(30)
            raise AssertionError(f"it did not end:\n{self._log.read_text()}") from None

    def __enter__(self) -> "Process":
        with ExitStack() as stack:
            stack.push(self.__exit__)  # also when it never becomes ready
            self.start()
            stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()


class Load:
    """Calls through one client, nearly without a pause; counts answers and failures."""

    PAUSE = 0.02  # seconds, so that servers that start get their turn

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        self._enough = threading.Event()
        self.answers = 0
        self.failures: list[MlpserveError] = []

    def _loop(self, client: Client) -> None:
        while not self._enough.is_set():
            try:
                client.predict(IMAGE)
                client.predict_batch(LARGE)
                self.answers += 2
            except MlpserveError as error:
                self.failures.append(error)
            time.sleep(self.PAUSE)

    async def _tasks(self) -> None:
        async with AsyncClient(self._targets) as client:
            await asyncio.gather(*(self._task(client) for _ in range(4)))

    async def _task(self, client: AsyncClient) -> None:
        while not self._enough.is_set():
            try:
                await client.predict(IMAGE)
                self.answers += 1
            except MlpserveError as error:
                self.failures.append(error)
            await asyncio.sleep(self.PAUSE)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        with Client(self._targets) as client:
            threads = [threading.Thread(target=self._loop, args=(client,)) for _ in range(3)]
            threads.append(threading.Thread(target=lambda: asyncio.run(self._tasks())))
            for thread in threads:
                thread.start()
            try:
                yield self
            finally:
                self._enough.set()
                for thread in threads:
                    thread.join()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Process]]:
    """Two servers with one store."""
    with ExitStack() as stack:
        yield pair(stack, tmp_path, free_address(), free_address())


def free_address() -> str:
    """An address that a server can have again after a restart.

    Below the ports that systems hand out to connections, or one of those could take it.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise AssertionError("no free port")


def pair(stack: ExitStack, folder: Path, *addresses: str) -> list[Process]:
    ModelServer("", folder, (28, 28), "0123456789").publish()
    return [stack.enter_context(Process(folder, address)) for address in addresses]


def disturb(servers: list[Process], how: signal.Signals, seconds: float) -> int:
    """End and restart the servers, one at a time, in turn; return how often."""
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        server = servers[count % 2]
        server.end(how)
        time.sleep(0.3)
        server.start()
        time.sleep(0.7)
        count += 1
    return count


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_one_of_two_servers_may_die_and_come_back_and_no_caller_notices(
    servers: list[Process], how: signal.Signals
) -> None:
    with Load([server.address for server in servers]).running() as load:
        count = disturb(servers, how, 4)

    print(f"{count} restarts, {load.answers} answers, {len(load.failures)} failures")
    assert load.failures == []
    assert load.answers > 100


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_minute_of_ends_and_restarts_reaches_no_caller(
    servers: list[Process], how: signal.Signals
) -> None:
    with Load([server.address for server in servers]).running() as load:
        count = disturb(servers, how, 60)

    print(f"{count} restarts, {load.answers} answers, {len(load.failures)} failures")
    assert load.failures == []


@pytest.mark.faults
@pytest.mark.parametrize("broken", ["no retries", "small retry buffer"])
def test_callers_would_notice_without_what_the_client_does(
    servers: list[Process], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "no retries":
        monkeypatch.setitem(_channel._SERVICE_CONFIG, "methodConfig", [])
    else:
        monkeypatch.setattr(_channel, "_RETRY_BUFFER", 256 * 1024)

    # A kill is noticed if it meets a batch: without pauses most do, and one is enough.
    monkeypatch.setattr(Load, "PAUSE", 0)
    kills = 0
    with Load([server.address for server in servers]).running() as load:
        while not load.failures and kills < 30:
            kills += disturb(servers, signal.SIGKILL, 0.1)

    print(f"noticed after {kills} kills")
    assert load.failures
