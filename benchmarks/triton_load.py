"""Triton's load generator, unmodified, against one server: calls a second and latency.

    python benchmarks/triton_load.py [--perf-analyzer "perf_analyzer"] [--workers 2]

`pip install perf-analyzer` has the program; its wheel needs glibc 2.38. On an older system, unpack
libc6, libstdc++6 and libgcc-s1 of a newer one into a folder, and have its loader run the program:
--perf-analyzer "FOLDER/ld-linux-x86-64.so.2 --library-path FOLDER .../bin/perf_analyzer". On a busy
machine no figure may settle within the program's ten windows: --stability is how much they may
differ. The server has a network of 784-128-10; requests are of zeros. The load runs on the
same cores as the server.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc

from benchmarks.compare.processes import Running, free_port
from benchmarks.compare.report import machine
from benchmarks.many_models import answered, publish
from mlpserve_model import Store

RESULTS = Path(__file__).parent / "results" / "triton_load.json"
MODEL = "mnist"
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
# A column of the program's table, and ours; its times are in microseconds.
COLUMNS = {
    "Inferences/Second": "calls_s",
    "p50 latency": "p50_us",
    "p95 latency": "p95_us",
    "p99 latency": "p99_us",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--perf-analyzer", default="perf_analyzer", help="command that runs it")
    parser.add_argument("--workers", type=int, default=2, help="workers of the server")
    parser.add_argument("--milliseconds", type=int, default=5000, help="length of a window")
    parser.add_argument("--stability", type=float, default=25, help="percent between windows")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        rows = measure(Path(text), options)
    figures = {"machine": machine(), "workers": options.workers, "concurrency": rows}
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for concurrency, row in rows.items():
        print(concurrency, row)


def measure(folder: Path, options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Serve a model and call it; return the figures by calls in flight."""
    publish(Store(folder / "store", MODEL), seed=0)
    port = free_port()
    command = [sys.executable, "-m", "mlpserve_server", "--store", str(folder / "store")]
    command += ["--model", MODEL, "--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
    command += ["--workers", str(options.workers)]
    (folder / "log").mkdir()
    server = Running(command, port, {}, folder / "log")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answered(channel, MODEL)
        return {
            concurrency: load(folder / f"{concurrency}.csv", port, concurrency, options)
            for concurrency in CONCURRENCY
        }
    finally:
        server.stop()


def load(table: Path, port: int, concurrency: int, options: argparse.Namespace) -> dict[str, float]:
    """Run the program with so many calls in flight; return the figures of its table."""
    command = shlex.split(options.perf_analyzer)
    command += ["-i", "grpc", "-u", f"127.0.0.1:{port}", "-m", MODEL, "--input-data", "zero"]
    command += ["--concurrency-range", str(concurrency), "-f", str(table)]
    command += ["--measurement-interval", str(options.milliseconds)]
    command += ["--stability-percentage", str(options.stability)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"there is no program {command[0]}: pip install perf-analyzer, or --perf-analyzer")
    if done.returncode or not table.exists():
        said = (done.stdout + done.stderr).strip()[-500:]
        sys.exit(f"perf_analyzer ended with {done.returncode}: {said}")
    with table.open() as lines:
        return figures(next(csv.DictReader(lines)))


def figures(row: dict[str, Any]) -> dict[str, float]:
    """Return what is kept of a row of the program's table."""
    return {ours: round(float(row[theirs]), 1) for theirs, ours in COLUMNS.items()}


if __name__ == "__main__":
    main()
