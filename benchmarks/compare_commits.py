"""What a call costs the server in two or more versions of this repository: CPU time, in turns.

    python benchmarks/compare_commits.py OLD NEW [NEW ...] [--rounds 30] [--seconds 0.4]

OLD and NEW are commits, or folders with a checkout; "." is the working tree. A server of one worker
for each, all up at once with the same weights, is measured for a moment, in turn, so that whatever
else the machine does meets all alike. OLD is measured twice, and the ratio of the two is the noise
floor. Printed are the medians of CPU microseconds (of the server alone, user and system), and the
median ratio to OLD in the same round, with an interval that holds 95 % of such medians.
"""

import argparse
import io
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeAlias

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.compare.contracts import own_contract
from benchmarks.compare.environments import ROOT
from benchmarks.compare.load import measure
from benchmarks.compare.processes import Running, free_port
from benchmarks.compare.rounds import (
    BATCH,
    MANY,
    ONE,
    SHAPES,
    SHARED,
    WARM_UP_SECONDS,
    wait_until_right,
)
from benchmarks.compare.servers import ours
from benchmarks.compare.workload import Workload, make

# By the interpreter that runs this: programs have their packages' path written into them.
START = "import sys; from mlpserve_server.cli import main; sys.exit(main(sys.argv[1:]))"
# Figures of each round, by load.
Rounds: TypeAlias = list[dict[str, float]]
LOADS = (SHARED, MANY, ONE, BATCH)
RESAMPLES = 2000


@dataclass
class Side:
    """A server of one version, and in each round its CPU microseconds a call by load."""

    name: str
    process: Running
    rounds: Rounds = field(default_factory=list)


def main() -> int:
    """Measure and print a table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="commits-") as name, ExitStack() as stack:
        folder = Path(name)
        workload = make(folder)
        sides: list[Side] = []
        for number, which in enumerate([options.commits[0], *options.commits]):
            server = running(checkout(which, folder), folder / f"side-{number}", workload)
            name = f"{which} again" if number == 1 else which
            sides.append(Side(name, stack.enter_context(server)))
            _measure(sides[-1], workload, WARM_UP_SECONDS)
            sides[-1].rounds.clear()
        for number in range(options.rounds):
            for side in sides if number % 2 else sides[::-1]:
                _measure(side, workload, options.seconds)
    print(table(sides))
    return 0


def checkout(which: str, folder: Path) -> Path:
    """Return the folder of a version; a commit is unpacked there."""
    if Path(which).is_dir():
        return Path(which).resolve()
    archive = subprocess.check_output(["git", "archive", which], cwd=ROOT)
    root = folder / "commits" / which.replace("/", "-")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(root, filter="data")
    return root


def table(sides: Sequence[Side]) -> str:
    """Return in Markdown the CPU microseconds of each side, and its ratio to the first."""
    lines = [f"| CPU µs a call | {' | '.join(LOADS)} |", f"|---|{'---:|' * len(LOADS)}"]
    for side in sides:
        cells = (cell(side.rounds, sides[0].rounds, load) for load in LOADS)
        lines.append(f"| {side.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return what holds 95 % of the medians of values drawn from these."""
    draw = random.Random(0)
    medians = sorted(median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[RESAMPLES // 40], medians[-RESAMPLES // 40]


def cell(rounds: Rounds, first: Rounds, load: str) -> str:
    """Return the median of a load, and its ratio to the first side's unless this is that."""
    used = median(figures[load] for figures in rounds)
    if rounds is first:
        return f"{used:.1f}"
    ratios = [new[load] / old[load] for new, old in zip(rounds, first, strict=True)]
    low, high = interval(ratios)
    return f"{used:.1f}, {median(ratios):.3f} ({low:.3f} to {high:.3f})"


@contextmanager
def running(root: Path, folder: Path, workload: Workload) -> Iterator[Running]:
    folder.mkdir()
    port = free_port()
    command = [
        *(sys.executable, "-c", START, "--store", str(workload.store), "--workers", "1"),
        *("--listen", f"127.0.0.1:{port}", "--log-level", "warning"),
    ]
    path = ":".join(str(root / part) for part in ("proto", "model", "server"))
    process = Running(command, port, {"PYTHONPATH": path}, folder)
    try:
        wait_until_right(process, ours(), workload)
        yield process
    finally:
        process.stop()


def _measure(side: Side, workload: Workload, seconds: float) -> None:
    """Measure one round of every load."""
    single, batch = own_contract(workload)
    loads = {load: (single, SHAPES[load]) for load in LOADS if load != BATCH}
    loads[BATCH] = batch, SHAPES[ONE]
    figures = {
        load: measure(side.process, call, shape, seconds, workload.folder).cpu_us
        for load, (call, shape) in loads.items()
    }
    side.rounds.append(figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="+", metavar="COMMIT", help="the first is compared with")
    parser.add_argument("--rounds", type=int, default=30, help="how often each is measured (30)")
    parser.add_argument("--seconds", type=float, default=0.4, help="of one measurement (0.4)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
