"""Callers that keep when each call began and how long it took, and what of that matters."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve_client import Client
from tests.support.system import CallingThreads
from tests.support.waiting import wait_for

__all__ = ["Answer", "TimedCallers", "descriptors", "p99", "resident"]


class Answer(NamedTuple):
    """One answered call; times in seconds."""

    caller: int
    began: float
    seconds: float
    row: int
    version: int
    probabilities: Any


class TimedCallers(CallingThreads):
    """Threads that call with the images in turns, each with a client and a connection of its own.

    Args:
        target: address of the server, or of several.
        images: what is sent, [n, ...].
        threads: number of callers.
        pause: seconds between two calls of a caller.

    """

    def __init__(
        self,
        target: str | list[str],
        images: NDArray[np.float32],
        threads: int = 4,
        pause: float = 0.002,
    ) -> None:
        super().__init__(threads)
        self.pause = pause
        self.answers: list[Answer] = []
        self._images, self._target = images, target

    def call(self, number: int) -> None:
        """Call until `done` is set."""
        row = number
        with Client(self._target) as client:
            while not self.done.is_set():
                row = (row + 1) % len(self._images)
                began = time.monotonic()
                try:
                    found = client.predict(self._images[row])
                except Exception as error:
                    self.failures.append(repr(error))
                else:
                    seconds = time.monotonic() - began
                    answer = (row, found.model.version, found.probabilities)
                    self.answers.append(Answer(number, began, seconds, *answer))
                self.done.wait(self.pause)

    def wait_for_more(self, count: int) -> None:
        """Wait until so many further calls were answered, or one failed."""
        enough = len(self.answers) + count
        wait_for(lambda: len(self.answers) >= enough or bool(self.failures), 60)

    @property
    def calls_per_second(self) -> float:
        """The rate of the calls that were answered."""
        answers = sorted(self.answers, key=lambda answer: answer.began)
        return (len(answers) - 1) / (answers[-1].began - answers[0].began)

    def torn(self, expected: Mapping[int, NDArray[np.float32]]) -> list[Answer]:
        """The answers other than the version that they name gives; `expected` is by version."""
        return [
            answer
            for answer in self.answers
            if not np.allclose(
                answer.probabilities, expected[answer.version][answer.row], rtol=0, atol=1e-6
            )
        ]

    def backwards(self) -> list[Answer]:
        """The answers of an earlier version than the same caller had before."""
        newest: dict[int, int] = {}
        found = []
        for answer in self.answers:
            if answer.version < newest.get(answer.caller, 0):
                found.append(answer)
            newest[answer.caller] = max(answer.version, newest.get(answer.caller, 0))
        return found


def p99(seconds: Sequence[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return float(np.quantile(seconds, 0.99)) * 1000


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
