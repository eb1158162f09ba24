"""Real processes over a real folder."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Network, Signature, Store
from tests.support import publishing
from tests.support.system import Callers, MakeCallers, Resident, RunServer

DRAFT = replace(
    publishing.DRAFT,
    network=Network((64, 32, 10)),
    signature=Signature((8, 8), 16, tuple("0123456789")),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", "mnist")


@pytest.fixture
def publish(store: Store) -> Callable[[], int]:
    """Publish a version with random weights and make it champion."""
    seeds = count()

    def publish() -> int:
        return publishing.publish_to(store, next(seeds), draft=DRAFT)

    return publish


@pytest.fixture
def run_server(store: Store) -> Iterator[RunServer]:
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
def server(run_server: RunServer) -> str:
    """The address of a server with one worker."""
    return run_server("--workers", "1")[0]


@pytest.fixture
def workers(run_server: RunServer) -> tuple[str, int]:
    """The address of a server with two workers, and their parent."""
    return run_server("--workers", "2")


@pytest.fixture
def make_callers() -> MakeCallers:
    """Callers of a server or of several, with images of their own."""
    images = np.random.default_rng(1).random((16, 8, 8), dtype=np.float32)
    return lambda target, threads=4: Callers(target, images, threads)


@pytest.fixture
def callers(server: str, make_callers: MakeCallers) -> Callers:
    """Four threads that call the server."""
    return make_callers(server)


@pytest.fixture
def resident() -> Resident:
    """Bytes of memory that a process has in use; 0 for one that has just ended."""

    def resident(pid: int) -> int:
        try:
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    return resident
