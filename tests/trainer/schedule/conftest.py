"""A schedule in a process of its own, and what it logs."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer.datasets import Dataset

PROGRAM = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
Event = dict[str, Any]


class Scheduled:
    """A schedule that runs; what it has logged is read on demand."""

    def __init__(self, process: "subprocess.Popen[str]", tmp_path: Path) -> None:
        self.process, self.store = process, Store(tmp_path / "store", "mnist")
        self.events: list[Event] = []

    def event(self, start: str, **fields: object) -> Event:
        """Read the log up to the next event that starts so and has these fields."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.events.append(json.loads(line))
            last = self.events[-1]
            if last["event"].startswith(start) and fields.items() <= last.items():
                return self.events[-1]
        raise AssertionError(f"no {start!r} among {self.events}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> int:
        """Read the log to its end; return the exit code."""
        assert self.process.stderr is not None
        self.events += map(json.loads, self.process.stderr)
        return self.process.wait()

    def count(self, event: str) -> int:
        return sum(e["event"] == event for e in self.events)

    def history(self) -> list[Event]:
        return [event for event in self.store.history() if event["event"] == "run"]

    def statuses(self) -> list[str]:
        return [event["status"] for event in self.history()]


Start = Callable[..., Any]


@pytest.fixture
def schedule(tmp_path: Path, stripes: Dataset) -> Start:
    """Start a schedule of short trainings on the stripes; it is killed when the test ends."""
    write(tmp_path / "stripes.npz", stripes)
    common = ["--dataset", "npz", "--data-dir", str(tmp_path / "stripes.npz")]
    common += ["--batch-size", "16", "--epochs", "20", "--log-format", "json"]

    @contextmanager
    def start(*arguments: str) -> Iterator[Scheduled]:
        command = [sys.executable, "-c", PROGRAM, "schedule", *common, *arguments]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Scheduled(process, tmp_path)
            finally:
                process.kill()

    return start


def write(path: Path, data: Dataset) -> None:
    np.savez(path, X=data.inputs, y=data.labels)
