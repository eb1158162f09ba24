"""Images and compose projects on a real Docker engine, and callers of them."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

import numpy as np
from sklearn.datasets import load_digits

from mlpserve_client import Client
from tests.support.waiting import wait_for

__all__ = ["ROOT", "TAG", "Callers", "Load", "NewStack", "Sbom", "Stack", "docker"]

ROOT = Path(__file__).parents[2]
TAG = "test"


def docker(
    *arguments: str, expect: int | None = 0, environment: dict[str, str] | None = None
) -> str:
    """Run `docker`, check its exit code (None: any will do) and return what it printed."""
    command = ["docker", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    output = done.stdout + done.stderr
    assert expect in (None, done.returncode), f"{arguments}: exit code {done.returncode}\n{output}"
    return output


def free_ports(count: int) -> int:
    """Return the first of so many free ports in a row."""
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind(("127.0.0.1", 0))
            first: int = sockets[0].getsockname()[1]
            for offset, each in enumerate(sockets[1:], 1):
                each.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        else:
            return first
        finally:
            for each in sockets:
                each.close()


# What runs in the client's image: calls until it is told to stop, then says what became of them.
LOAD = """
import collections, json, signal, sys, threading, time
from functools import partial
import numpy as np
from mlpserve_client import Client
over, counts, slowest = threading.Event(), collections.Counter(), [0.0]
signal.signal(signal.SIGTERM, lambda *_: over.set())
def call(rows):
    with Client(timeout=30) as client:
        images = np.zeros((rows, *client.model().input_shape), np.uint8)
        batch, single = partial(client.predict_batch, images), partial(client.predict, images[0])
        send = batch if rows > 1 else single
        while not over.is_set():
            started = time.perf_counter()
            try:
                counts[f"version {send().model.version}"] += 1
            except Exception as error:
                counts[f"failed: {error!r}"] += 1
            slowest[0] = max(slowest[0], time.perf_counter() - started)
            time.sleep(0.004)
callers, rows = map(int, sys.argv[1:])
threads = [threading.Thread(target=call, args=(rows,)) for _ in range(callers)]
for thread in threads:
    thread.start()
print("calling", flush=True)
for thread in threads:
    thread.join()
print(json.dumps({"counts": counts, "slowest": slowest[0]}))
"""


class Load:
    """Callers in a container of its own, beside the servers, which find them by name.

    Args:
        network: where the servers are.
        threads: number of callers.
        rows: of each call; a batch, unless 1.

    """

    def __init__(self, network: str, threads: int = 4, rows: int = 1) -> None:
        where = ("--network", network, "--env", "MLPSERVE_TARGET=server:50051")
        program = ("--entrypoint", "python", f"mlpserve-client:{TAG}", "-c", LOAD)
        command = ("run", "--detach", *where, *program, str(threads), str(rows))
        self._container = docker(*command).strip()
        wait_for(lambda: "calling" in docker("logs", self._container), 30)

    def stop(self) -> Any:
        """End it; gives `counts`, by version and failure, and the `slowest` call in seconds."""
        docker("stop", "--time", "60", self._container)
        lines = docker("logs", self._container).splitlines()
        docker("rm", self._container)
        # gRPC's core may write lines of its own, also behind the last one.
        (told,) = (line for line in lines if line.startswith("{"))
        return json.loads(told)


class Stack:
    """A compose project of its own: no container, network or volume is shared with another."""

    docker, wait_for = staticmethod(docker), staticmethod(wait_for)

    def __init__(self, servers: int = 1, **environment: str) -> None:
        port = free_ports(servers)
        ports = str(port) if servers == 1 else f"{port}-{port + servers - 1}"
        self.target = f"127.0.0.1:{port}"
        self.name = f"mlpserve-test-{uuid4().hex[:8]}"
        # What the tests' own shell sets must not decide what they see.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLPSERVE_")}
        self.environment = inherited | {
            "MLPSERVE_TAG": TAG,
            "MLPSERVE_PORT": ports,
            "MLPSERVE_SERVERS": str(servers),
            "MLPSERVE_WEB_PORT": "0",  # any free one
            "MLPSERVE_DATASET": "digits",
            **environment,
        }

    def compose(self, *arguments: str, expect: int = 0) -> str:
        """Run `docker compose`, check its exit code and return what it printed."""
        command = ("compose", "--progress", "plain", "--project-name", self.name, *arguments)
        return docker(*command, expect=expect, environment=self.environment)

    def up(self, *arguments: str) -> float:
        """Bring everything up and return how many seconds it took."""
        started = time.monotonic()
        self.compose(*arguments, "up", "--wait")
        return time.monotonic() - started

    def down(self) -> None:
        """Leave nothing behind, of no profile."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def run(self, service: str, *arguments: str, expect: int = 0) -> str:
        """Run a one-off container to its end."""
        return self.compose("run", "--rm", "--no-TTY", service, *arguments, expect=expect)

    def models(self, *arguments: str) -> str:
        """Run `mlpserve-models`, which every image has, on the store."""
        entry = ("--entrypoint", "mlpserve-models", "trainer")
        return self.compose("run", "--rm", "--no-deps", "--no-TTY", *entry, *arguments)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def container(self, service: str) -> str:
        return "".join(self.containers(service))

    def inspect(self, service: str) -> Any:
        return json.loads(docker("inspect", self.container(service)))[0]

    def events(self, service: str) -> list[str]:
        """Give what the service logged since its container was made."""
        lines = docker("logs", self.container(service)).splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    def served(self, target: str | None = None) -> int:
        """Give the version that answers; `target`: not the first server, but this one."""
        with Client(target or self.target) as client:
            return client.model().ref.version

    def another_version(self) -> None:
        """Train one that is served whatever the gate thinks of it."""
        seed = str(int(time.time()))
        self.run("trainer", "train", "--seed", seed, "--force", "--reason", "a test needs another")


class Callers:
    """Threads that call, and what became of their calls."""

    def __init__(self, target: str, threads: int = 4) -> None:
        self.labels: list[int] = []
        self.failures: list[Exception] = []
        self._image = load_digits().images[0].astype(np.uint8)
        self._target = target
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 100) -> None:
        """Wait until so many further calls were answered, or one failed."""
        enough = len(self.labels) + count
        wait_for(lambda: len(self.labels) > enough or bool(self.failures), 30)

    def _call(self) -> None:
        with Client(self._target, timeout=30) as client:
            while not self._over.is_set():
                try:
                    self.labels.append(client.predict(self._image).label)
                except Exception as error:
                    self.failures.append(error)


class NewStack(Protocol):
    """Makes compose projects that are gone after the test."""

    def __call__(self, servers: int = 1, **environment: str) -> Stack:
        """Return one with so many servers and these variables."""
        ...


# Describes an image as `make sbom` does.
Sbom: TypeAlias = Callable[[str], dict[str, Any]]
