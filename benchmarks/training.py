"""Time a training step of mlpserve, PyTorch, JAX, scikit-learn and the matrix products alone.

    python benchmarks/training.py [--rounds 7] [--epochs 3] [--only NAME ...] [--peers PYTHON]
        [--hidden 128] [--batch 128] [--images 60000]

784-128-10, or with other hidden layers, on MNIST's training images, batches of 128, Adam at 0.001,
float32, every row once an epoch in random order. Each contender has a process of its own that lasts
for the whole benchmark; in every round each trains in turn, after one epoch that is not timed. The
table shows the first percentile of the step times, which other programs disturb least, their
median, and the ratio of the first to the matrix products alone, the floor. Only whole epochs of
scikit-learn and of JAX step by step can be timed. JAX scans 36 steps in a call. Then each contender
trains with five seeds until it reaches 98 % on the test images.

PyTorch and JAX are installed in an environment outside the repository; make it with

    python -m venv PLACE && PLACE/bin/pip install -r benchmarks/training/requirements.txt
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mlpserve_model.process.folders import cache_folder
from mlpserve_trainer.datasets import DataLocations, Dataset, load

HERE = Path(__file__).parent
SCRIPT = HERE / "training" / "contenders.py"
RESULTS = HERE / "results" / "training.json"
TARGET = 0.98
SPRINT_EPOCHS = 4
PRODUCTS = ("matrix products, two halves", "matrix products, 2 BLAS threads",
    "matrix products, 1 thread")  # fmt: skip
OURS = ("mlpserve", "mlpserve, 1 process", "mlpserve sprint")
PEERS = ("JAX, jitted scans", "JAX, step by step", "PyTorch eager, fused Adam, 2 threads",
    "PyTorch eager, fused Adam, 1 thread", "PyTorch compiled, fused Adam, 2 threads",
    "PyTorch sprint", "scikit-learn, 2 BLAS threads", "scikit-learn, 1 BLAS thread")  # fmt: skip


@dataclass
class Contender:
    """A process that trains on request, and its results."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    steps: list[list[float]] = field(default_factory=list)
    to_target: list[float | None] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def fast(self) -> float:
        """Microseconds of a fast step in the best round."""
        return min(step for step, _, _ in self.steps)

    def train(self, seed: int, epochs: int, until: float = 2.0) -> dict[str, Any]:
        """Train and return the times; raises RuntimeError when the process has ended."""
        assert self.process.stdin
        assert self.process.stdout
        order = {"seed": seed, "epochs": epochs, "until": until}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended")
        result: dict[str, Any] = json.loads(answer)
        self.peak_bytes = max(self.peak_bytes, result["peak_bytes"])
        return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--epochs", type=int, default=3, help="epochs in each round")
    parser.add_argument("--seeds", type=int, default=5, help="trainings to 98 %% of each contender")
    parser.add_argument(
        "--longest", type=int, default=15, help="maximum epochs of a training to 98 %%"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=(*PRODUCTS, *OURS, *PEERS),
        help="names of the contenders to time",
    )
    parser.add_argument(
        "--peers", type=Path, default=_default_peers(), help="Python interpreter of PyTorch and JAX"
    )
    parser.add_argument("--hidden", default="128", help="units of each hidden layer: 1024,1024")
    parser.add_argument("--batch", default="128", help="rows of a step")
    parser.add_argument("--images", type=int, default=60_000, help="training images of an epoch")
    parser.add_argument(
        "--json",
        type=Path,
        help=f"file for the figures ({RESULTS.name}, or one named after the sizes)",
    )
    options = parser.parse_args()
    folder = os.environ.get("MLPSERVE_DATA_DIR")
    data = load("mnist", DataLocations(Path(folder) if folder else None, cache_folder()))
    rows = data.training_rows or len(data.inputs)
    if not 0 < options.images <= rows:
        parser.error(f"--images {options.images}, expected 1 to {rows}")
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        path = write_data(data, options.images, Path(place))
        names = [name for name in options.only if is_here(name, options.peers)]
        task = str(path), options.hidden, options.batch
        started = (running(name, options.peers, *task) for name in names)
        contenders = [stack.enter_context(one) for one in started]
        usable = [one for one in contenders if warmed_up(one)]
        measure(usable, options)
    print(table(usable))
    sizes = (options.hidden.replace(",", "-"), options.batch, str(options.images))
    own = f"training-{'-'.join(sizes).removesuffix('-60000')}.json"
    usual = sizes == ("128", "128", "60000")
    file = options.json or (RESULTS if usual else RESULTS.with_name(own))
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(as_json(usable, options), indent=1) + "\n")


def write_data(data: Dataset, images: int, folder: Path) -> Path:
    rows = data.training_rows
    own = slice(images)
    x, path = data.inputs.reshape(len(data.inputs), -1), folder / "data.npz"
    np.savez(
        path, x=x[:rows][own], y=data.labels[:rows][own], test_x=x[rows:], test_y=data.labels[rows:]
    )
    return path


def is_here(name: str, peers: Path) -> bool:
    if name in PEERS and not peers.exists():
        print(f"left out: {name}: {peers} does not exist; see --help", file=sys.stderr)
        return False
    return True


@contextmanager
def running(name: str, peers: Path, *task: str) -> Iterator[Contender]:
    """Run a contender; its task is the file of the data, hidden layers and rows of a step."""
    python = str(peers) if name in PEERS else sys.executable
    command = [python, str(SCRIPT), name, *task]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Contender(name, process)
        finally:
            process.kill()


def warmed_up(contender: Contender) -> bool:
    try:
        contender.train(seed=0, epochs=1)
    except (RuntimeError, OSError) as error:
        print(f"left out: {contender.name}: {error}", file=sys.stderr)
        return False
    return True


def measure(contenders: list[Contender], options: argparse.Namespace) -> None:
    for seed in range(options.rounds):
        measure_round(contenders, seed, options.epochs)
    for seed in range(options.seeds):
        for contender in contenders:
            race(contender, seed, options.longest)


def measure_round(contenders: list[Contender], seed: int, epochs: int) -> None:
    for contender in contenders:
        if not contender.name.endswith("sprint"):
            result = contender.train(seed, epochs)
            contender.seconds += result["seconds"]
            contender.steps.append(result["steps"])


def race(contender: Contender, seed: int, longest: int) -> None:
    """Record the seconds to 98 %, None if the contender does not reach it."""
    if contender.name in PRODUCTS:
        return
    # The learning rate of a sprint falls to 0 over its own few epochs.
    epochs = SPRINT_EPOCHS if contender.name.endswith("sprint") else longest
    result = contender.train(seed, epochs, until=TARGET)
    reached = max(result["accuracies"]) >= TARGET
    contender.to_target.append(sum(result["seconds"]) if reached else None)


def table(contenders: list[Contender]) -> str:
    by_name = {one.name: one for one in contenders if one.steps}
    floor = min((by_name[name].fast for name in PRODUCTS if name in by_name), default=math.nan)
    ours = by_name["mlpserve"].fast if "mlpserve" in by_name else math.nan
    lines = [
        "| | fast step, µs | to floor | to mlpserve | median, µs | s to 98 % | memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in contenders:
        figures = ["", "", "", ""]
        if one.steps:
            ratios = [f"{one.fast / other:.2f}" for other in (floor, ours)]
            middle = median(step for _, step, _ in one.steps)
            figures = [f"{one.fast:.0f}", *ratios, f"{middle:.0f}"]
        memory = f"{one.peak_bytes / 1e6:.0f} MB"
        lines.append(f"| {' | '.join([one.name, *figures, reached(one), memory])} |")
    return "\n".join(lines)


def reached(contender: Contender) -> str:
    if not contender.to_target:
        return ""
    times = [time for time in contender.to_target if time is not None]
    if len(times) < len(contender.to_target):
        return f"{len(times)} of {len(contender.to_target)} did"
    return f"{median(times):.2f}"


def as_json(contenders: list[Contender], options: argparse.Namespace) -> dict[str, Any]:
    sizes = f"784-{options.hidden.replace(',', '-')}-10"
    return {
        "network": f"{sizes}, batches of {options.batch}, Adam, float32, "
        f"{options.images:,} images an epoch",
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load_average_at_the_end": os.getloadavg(),
        "contenders": {
            one.name: {
                "microseconds_a_step_1_50_99_percent": one.steps,
                "seconds_an_epoch": [round(second, 4) for second in one.seconds],
                "seconds_to_98": [time and round(time, 3) for time in one.to_target],
                "peak_bytes": one.peak_bytes,
            }
            for one in contenders
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def _default_peers() -> Path:
    return Path(cache_folder()).parent / "mlpserve-bench/training/venv/bin/python"


if __name__ == "__main__":
    main()
