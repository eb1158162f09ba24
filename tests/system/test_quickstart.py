"""What `make demo` runs does what the README says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.examples

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.py"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty cache and a proxy that does not exist: MNIST cannot be fetched."""
    unreachable = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    folders = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment = os.environ | unreachable | folders
    environment.pop("MLPSERVE_DATA_DIR", None)
    return environment


def test_the_quickstart_shows_the_whole_loop(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, str(SCRIPT)]
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "using the digits of scikit-learn instead of MNIST" in run.stderr
    assert "accuracy over gRPC" in run.stdout
    assert "right" in run.stdout
    assert "wrong: it is" in run.stdout
    assert "answers by version 1" in run.stdout
    assert "answers by version 2" in run.stdout
    assert "exit code 0" in run.stdout
    assert "0 failed calls" in run.stdout
    assert not list(tmp_path.glob("models")), "it leaves nothing behind"
    assert not list(tmp_path.glob("mlpserve-demo-*")), "it leaves nothing behind"


def test_an_interrupt_ends_the_quickstart_in_one_line(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-u", str(SCRIPT)]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout
        for line in run.stdout:
            if line.startswith("5."):  # the server runs, calls go on, a training begins
                break
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        said = run.stdout.read()
        code = run.wait(timeout=60)
    assert code == 130, said
    assert "Traceback" not in said
    assert said.endswith("interrupted; nothing is left behind\n")
    assert not list(tmp_path.glob("mlpserve-demo-*"))
