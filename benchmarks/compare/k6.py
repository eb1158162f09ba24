"""A second opinion by k6, a load generator that speaks gRPC: each answer's status and label."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.compare.environments import ROOT, environment
from benchmarks.compare.processes import Running
from benchmarks.compare.workload import Workload

__all__ = ["Checked", "check_under_load"]

USERS = 64
SECONDS = 2


class Checked(NamedTuple):
    """How many checks k6 made, two for each answer, and how many failed."""

    passed: int
    failed: int


def check_under_load(server: Running, workload: Workload) -> Checked:
    """Ask a server of mlpserve's own contract from many users; raises Absent."""
    program = environment("k6") / "bin" / "k6"
    summary = workload.folder / "k6.json"
    values = {
        "ADDRESS": f"127.0.0.1:{server.port}",
        "PROTO": str(ROOT / "proto"),
        "INSTANCE": base64.b64encode(workload.row.tobytes()).decode(),
        "LABEL": str(int(workload.row_answer.argmax())),
    }
    command = [
        *(str(program), "run", "--quiet", "--vus", str(USERS), "--duration", f"{SECONDS}s"),
        *("--summary-export", str(summary)),
        *(part for pair in values.items() for part in ("--env", "=".join(pair))),
        str(Path(__file__).with_name("k6.js")),
    ]
    environ = {**os.environ, "K6_NO_USAGE_REPORT": "true"}
    subprocess.run(command, env=environ, capture_output=True, timeout=60, check=True)
    checks = json.loads(summary.read_text())["metrics"]["checks"]
    return Checked(checks["passes"], checks["fails"])
