"""Real processes over a real folder."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client
from mlpserve_model import (
    CHAMPION,
    DatasetInfo,
    Draft,
    Network,
    Signature,
    Store,
    Verdict,
    initialise,
)

DRAFT = Draft(
    model="mnist",
    network=Network((64, 32, 10)),
    signature=Signature((8, 8), 16, tuple("0123456789")),
    dataset=DatasetInfo("made up", "sha256:0", "none"),
    recipe={},
    seed=0,
    libraries={},
    metrics={"accuracy": 0.9},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", "mnist")


@pytest.fixture
def publish(store: Store) -> Callable[[], int]:
    """Publish a version with random weights and make it champion."""
    rng = np.random.default_rng(0)

    def publish() -> int:
        golden = rng.random((4, 64), dtype=np.float32)
        version = store.publish(
            DRAFT, Verdict("PROMOTED"), initialise(DRAFT.network, rng), golden
        ).version
        expected = store.aliases().get(CHAMPION)
        store.move_alias(CHAMPION, version, expected=expected, event="promote", reason="test")
        return version

    return publish


@pytest.fixture
def run_server(store: Store) -> Iterator[Callable[..., tuple[str, int]]]:
    """Start servers that follow the store; gives address and process. All must end with 0."""
    running: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def run(*arguments: str) -> tuple[str, int]:
        program = str(Path(sys.executable).with_name("mlpserve-server"))
        command = [program, "--store", str(store.folder.parent), "--listen", "127.0.0.1:0"]
        command += ["--poll-seconds", "0.02", "--log-format", "json", *arguments]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        listening = json.loads(process.stderr.readline())
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        running.append((process, reader))
        return listening["address"], process.pid

    yield run
    for process, reader in running:
        process.terminate()
        assert process.wait(timeout=30) == 0
        reader.join()
        assert process.stderr
        process.stderr.close()


@pytest.fixture
def server(run_server: Callable[..., tuple[str, int]]) -> str:
    """The address of a server with one worker."""
    return run_server("--workers", "1")[0]


@pytest.fixture
def workers(run_server: Callable[..., tuple[str, int]]) -> tuple[str, int]:
    """The address of a server with two workers, and their parent."""
    return run_server("--workers", "2")


class Callers:
    """Threads that call, `pause` seconds apart, and keep what they got."""

    pause = 0.0

    def __init__(self, target: str | list[str], images: Any, threads: int = 4) -> None:
        self.images = images
        self.answers: list[tuple[int, int, Any]] = []  # row, version, probabilities
        self.failures: list[str] = []
        self._target = target
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(threads)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def differing(self, store: Store, atol: float = 1e-6) -> list[int]:
        """The versions with answers other than their own weights give."""
        found = set()
        for version in {version for _, version, _ in self.answers}:
            expected = store.load(version).predict(self.images.reshape(len(self.images), -1))
            mine = [(row, p) for row, v, p in self.answers if v == version]
            rows = [row for row, _ in mine]
            if not np.allclose([p for _, p in mine], expected[rows], rtol=0, atol=atol):
                found.add(version)
        return sorted(found)

    def wait_for(self, version: int) -> None:
        """Wait until this version answers; fails after twenty seconds."""
        deadline = time.monotonic() + 20
        while not self.answers or self.answers[-1][1] != version:
            assert time.monotonic() < deadline, f"version {version} never answered"
            time.sleep(0.01)

    def _call(self, row: int) -> None:
        with Client(self._target) as client:
            while not self._done.is_set():
                row = (row + 1) % len(self.images)
                try:
                    answer = client.predict(self.images[row])
                    self.answers.append((row, answer.model.version, answer.probabilities))
                except Exception as error:
                    self.failures.append(repr(error))
                time.sleep(self.pause)


@pytest.fixture
def make_callers() -> Callable[..., Callers]:
    """Callers of a server or of several, with images of their own."""
    images = np.random.default_rng(1).random((16, 8, 8), dtype=np.float32)
    return lambda target, threads=4: Callers(target, images, threads)


@pytest.fixture
def callers(server: str, make_callers: Callable[..., Callers]) -> Callers:
    """Four threads that call the server."""
    return make_callers(server)


@pytest.fixture
def resident() -> Callable[[int], int]:
    """Bytes of memory that a process has in use; 0 for one that has just ended."""

    def resident(pid: int) -> int:
        try:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    return resident
