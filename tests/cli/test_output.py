"""Commands whose output is closed, full, read no further, or of an encoding that lacks a letter."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.support.waiting import eventually

BIN = Path(sys.executable).parent
COMMANDS = [
    "mlpserve --help",
    "mlpserve doctor",
    "mlpserve completion bash",
    "mlpserve-models list --store STORE",
    "mlpserve-trainer datasets",
]
# Printed by argparse: to the other output if this one is closed, without an error if unbuffered.
HELPS = [
    "mlpserve-client --help",
    "mlpserve-models prune --help",
    "mlpserve-server --help",
    "mlpserve-trainer recipes --help",
    "mlpserve-web --help",
]


def run(command: str, store: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of the shell; the exit code is that of the command, not of its reader."""
    line = command.replace("STORE", str(store))
    return subprocess.run(
        ["bash", "-c", f"{BIN}/{line}; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_output_is_as_if_nobody_looked(command: str, tmp_path: Path) -> None:
    ended = run(f"{command} >&-", tmp_path)
    assert ended.returncode in (0, 1)  # 1: doctor has found something
    assert ended.stderr == ""


@pytest.mark.parametrize("command", COMMANDS + HELPS)
def test_a_reader_that_has_enough_is_no_error(command: str, tmp_path: Path) -> None:
    ended = run(f"{command} | true", tmp_path)
    assert "Error" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(
    ("command", "unbuffered"), [*product(COMMANDS, ["", "1"]), *product(HELPS, [""])]
)
def test_an_output_that_is_full_is_named(command: str, unbuffered: str, tmp_path: Path) -> None:
    ended = run(f"{command} >/dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == 1
    assert "cannot write the output: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_letter_that_the_encoding_lacks_is_escaped(command: str, tmp_path: Path) -> None:
    store = tmp_path / "größe"
    store.mkdir()
    ended = run(command, store, PYTHONIOENCODING="ascii")
    assert ended.stderr == ""


CONTINUING = [
    "mlpserve-server --store STORE --workers 1 --listen unix:STORE/socket",
    "mlpserve-server --store STORE --workers 2 --listen 127.0.0.1:0",
    "mlpserve-web --listen 127.0.0.1:0",
    "mlpserve-trainer schedule --store STORE --every 1h --health-listen 127.0.0.1:0",
]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux has it")
@pytest.mark.parametrize("command", CONTINUING)
def test_closed_files_give_their_numbers_to_no_connection(command: str, tmp_path: Path) -> None:
    line = f"exec {BIN}/{command.replace('STORE', str(tmp_path))} <&- >&- 2>&-"
    with subprocess.Popen(["bash", "-c", line]) as program:
        try:
            eventually(lambda: is_past_its_start(program.pid))
            assert standard_files(program.pid) == ["/dev/null"] * 3
            for child in children(program.pid):
                assert standard_files(child)[1:] == ["/dev/null"] * 2
        finally:
            program.terminate()
            program.wait(30)


@pytest.mark.usefixtures("no_figures")
def test_a_closed_error_output_puts_nothing_into_the_output(tmp_path: Path) -> None:
    flags = "train --dataset digits --epochs 1 --min-accuracy 0 --json --store STORE"
    ended = run(f"mlpserve-trainer {flags} 2>&-", tmp_path, MLPSERVE_CACHE_DIR=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["version"] == 1


def standard_files(process: int) -> list[str]:
    return [str(Path(f"/proc/{process}/fd/{number}").readlink()) for number in range(3)]


def is_past_its_start(process: int) -> bool:
    """Return True if the shell has become the program, and the program has a socket open.

    The shell may have one of its own for a moment: it asks nscd who the user is where the
    environment does not say it.
    """
    try:
        if Path(f"/proc/{process}/exe").readlink() != Path(sys.executable).resolve():
            return False
        files = [str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir()]
    except FileNotFoundError:  # a file was closed meanwhile
        return False
    return any(file.startswith("socket:") for file in files)


def children(process: int) -> list[int]:
    return [
        int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]
