"""Commands whose output is closed, full, read no further, or of an encoding that lacks a letter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import eventually

BIN = Path(sys.executable).parent
COMMANDS = [
    "mlpserve --help",
    "mlpserve doctor",
    "mlpserve-models list --store STORE",
    "mlpserve-trainer datasets",
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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_enough_is_no_error(command: str, tmp_path: Path) -> None:
    ended = run(f"{command} | true", tmp_path)
    assert "Error" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_is_full_is_named(command: str, tmp_path: Path) -> None:
    ended = run(f"{command} >/dev/full", tmp_path)
    assert ended.returncode == 1
    assert "cannot write the output: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_letter_that_the_encoding_lacks_is_escaped(command: str, tmp_path: Path) -> None:
    store = tmp_path / "größe"
    store.mkdir()
    ended = run(command, store, PYTHONIOENCODING="ascii")
    assert ended.stderr == ""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux has it")
def test_a_server_with_closed_files_gives_their_numbers_to_no_connection(tmp_path: Path) -> None:
    program = f"{BIN}/mlpserve-server"
    flags = f"--store {tmp_path} --workers 1 --listen unix:{tmp_path}/socket"
    line = f"exec {program} {flags} <&- >&- 2>&-"
    with subprocess.Popen(["bash", "-c", line]) as server:
        try:
            eventually(Path(tmp_path, "socket").exists)
            files = [str(Path(f"/proc/{server.pid}/fd/{number}").readlink()) for number in range(3)]
        finally:
            server.kill()
    assert files == ["/dev/null"] * 3
