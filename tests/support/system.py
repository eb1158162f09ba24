"""Servers as processes of their own, and threads that call them."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.waiting import eventually

__all__ = ["Callers", "CallingThreads", "MakeCallers", "Resident", "RunServer"]

# Bytes of memory that a process has in use; 0 for one that has just ended.
Resident: TypeAlias = Callable[[int], int]


class RunServer(Protocol):
    """Starts a server that follows the store; it must end with exit code 0 after the test."""

    def __call__(self, *arguments: str) -> tuple[str, int]:
        """Return its address and the number of its process."""
        ...


class CallingThreads(ABC):
    """Threads that each run `call` with a number of their own, until `done` is set."""

    pause = 0.005  # between two calls: servers that follow get their turn

    def __init__(self, threads: int) -> None:
        self.failures: list[str] = []
        self.done = threading.Event()
        self._threads = [threading.Thread(target=self.call, args=(i,)) for i in range(threads)]

    @abstractmethod
    def call(self, number: int) -> None:
        """Call until `done` is set."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join()


class Callers(CallingThreads):
    """Threads that call, `pause` seconds apart, and keep what they got."""

    def __init__(
        self, target: str | list[str], images: NDArray[np.float32], threads: int = 4
    ) -> None:
        super().__init__(threads)
        self.images = images
        self.answers: list[tuple[int, int, Any]] = []  # row, version, probabilities
        self._target = target

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
        eventually(lambda: bool(self.answers) and self.answers[-1][1] == version)

    def wait_for_more(self, count: int) -> None:
        """Wait until so many further calls were answered, or one failed."""
        enough = len(self.answers) + count
        eventually(lambda: len(self.answers) >= enough or bool(self.failures))

    def call(self, number: int) -> None:
        """Call with the images in turns."""
        row = number
        with Client(self._target) as client:
            while not self.done.is_set():
                row = (row + 1) % len(self.images)
                try:
                    answer = client.predict(self.images[row])
                    self.answers.append((row, answer.model.version, answer.probabilities))
                except Exception as error:
                    self.failures.append(repr(error))
                time.sleep(self.pause)


class MakeCallers(Protocol):
    """Makes callers of a server or of several, with images of their own."""

    def __call__(self, target: str | list[str], threads: int = 4) -> Callers:
        """Return them, not yet calling."""
        ...
