"""What `make demo` runs does what the README says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_quickstart_shows_the_whole_loop(tmp_path: Path) -> None:
    # An empty cache and a proxy that is not there: no MNIST is to be had.
    nowhere = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    environment = os.environ | nowhere | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("MLPSERVE_DATA_DIR", None)
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py")]
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "using the digits of scikit-learn instead of MNIST" in run.stderr
    assert "accuracy over gRPC" in run.stdout
    assert "answers by version 1" in run.stdout
    assert "answers by version 2" in run.stdout
    assert "exit code 0" in run.stdout
    assert "0 failed calls" in run.stdout
    assert list(tmp_path.glob("models")) == [], "it leaves nothing behind"
