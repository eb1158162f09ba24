"""examples/k6/infer.js puts load on a real server and judges its answers."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlpserve_client.testing import ModelServer

SCRIPT = Path(__file__).parents[2] / "examples" / "k6" / "infer.js"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
# In the path, or where the benchmarks put it.
K6 = shutil.which("k6") or shutil.which("k6", path=str(CACHE / "mlpserve-bench" / "k6" / "bin"))

pytestmark = pytest.mark.skipif(not K6, reason="k6 is not installed: see https://k6.io")


def run(summary: Path, *arguments: str) -> tuple[int, Any]:
    """The exit code of k6 and its metrics."""
    command = [str(K6), "run", "--quiet", "--summary-export", str(summary), *arguments]
    done = subprocess.run(
        [*command, str(SCRIPT)],
        env=os.environ | {"K6_NO_USAGE_REPORT": "true"},
        capture_output=True,
        timeout=60,
    )
    return done.returncode, json.loads(summary.read_text())["metrics"]


def test_every_check_of_every_answer_passes(server: ModelServer, tmp_path: Path) -> None:
    load = ("--vus", "8", "--duration", "2s", "-e", "P99=30000")
    code, metrics = run(tmp_path / "summary", "-e", f"TARGET={server.target}", *load)
    assert (code, metrics["checks"]["fails"]) == (0, 0)
    assert metrics["checks"]["passes"] > 50


def test_it_fails_for_a_model_that_is_not_there(server: ModelServer, tmp_path: Path) -> None:
    which = ("-e", f"TARGET={server.target}", "-e", "MODEL=cifar")
    code, _ = run(tmp_path / "summary", *which)
    assert code != 0


def test_it_fails_when_answers_are_too_slow(server: ModelServer, tmp_path: Path) -> None:
    which = ("-e", f"TARGET={server.target}", "-e", "P99=0.001", "--duration", "1s")
    code, metrics = run(tmp_path / "summary", *which)
    assert code != 0
    assert metrics["checks"]["fails"] == 0
