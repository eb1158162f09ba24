"""Nothing in the folder where a program starts is run, by it or by the processes that it starts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BIN = Path(sys.executable).parent
TRAP = """\
import os
with open(os.environ["TRAPPED"], "a") as file:
    file.write(__name__ + "\\n")
raise RuntimeError("a module of the starting folder was imported")
"""
PACKAGES = ("numpy", "grpc", "mlpserve_model", "mlpserve_server", "mlpserve_trainer", "sklearn")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """The file in which every module of the starting folder notes that it was imported."""
    return tmp_path / "trapped"


@pytest.fixture
def start(tmp_path: Path, trapped: Path) -> Iterator[Start]:
    """Start a program in a folder that has a module of every name that Python could look for."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (*sys.stdlib_module_names, *PACKAGES):
        (folder / f"{name}.py").write_text(TRAP)
    running: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
        # Ours on a search path of its own, as an administrator may have it: that still holds.
        environment = os.environ | {"TRAPPED": str(trapped)}
        command = [str(BIN / program), *arguments, "--log-format", "json"]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """The flags of a training that takes a second, and where it goes."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    inputs = (rng.random((200, 4)) * 100 + labels[:, None] * 100).astype(np.uint8)
    np.savez(tmp_path / "data.npz", X=inputs, y=labels)
    return ["--data-dir", str(tmp_path / "data.npz"), "--store", str(tmp_path / "store")]


def event(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """Wait for an event in the log."""
    assert process.stderr
    log = []
    for line in process.stderr:
        log.append(line)
        found: dict[str, Any] = json.loads(line)
        if found["event"] == name:
            return found
    raise AssertionError(f"no {name!r} in {''.join(log)}")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_and_its_workers_import_nothing_from_there(
    start: Start, trapped: Path, tmp_path: Path, workers: str
) -> None:
    server = start(
        "mlpserve-server",
        *("--store", str(tmp_path / "store"), "--listen", "127.0.0.1:0", "--workers", workers),
        *("--metrics-listen", "127.0.0.1:0"),
    )
    for _ in range(int(workers)):
        event(server, "waiting for a model")
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=30)
    assert (server.returncode, trapped.exists()) == (0, False), trapped.read_text()


def test_a_scheduled_training_imports_nothing_from_there(
    start: Start, trapped: Path, data: list[str]
) -> None:
    schedule = start(
        "mlpserve-trainer", "schedule", "--every", "1h", "--now", "--dataset", "npz",
        *("--epochs", "2", "--min-accuracy", "0"), *data,
    )  # fmt: skip
    ended = event(schedule, "run ended")
    schedule.send_signal(signal.SIGTERM)
    schedule.communicate(timeout=30)
    assert not trapped.exists(), trapped.read_text()
    assert ended["status"] == "promoted", ended


def test_the_processes_of_a_sweep_import_nothing_from_there(
    start: Start, trapped: Path, data: list[str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(
        'dataset = "npz"\nepochs = 1\nvalidation_fraction = 0.2\n'
    )
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'recipe = "{tmp_path}/recipe.toml"\nseeds = [0]\n[grid]\nhidden = [[2], [3]]')
    process = start("mlpserve-trainer", "sweep", str(sweep), "--jobs", "2", *data)
    _, log = process.communicate(timeout=100)
    assert not trapped.exists(), trapped.read_text()
    assert process.returncode == 0, log
