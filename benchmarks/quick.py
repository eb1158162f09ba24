"""What got slower since the last landed figures: two minutes, ratios alone.

    python benchmarks/quick.py [--record] [--rounds 20]

Each figure is divided by one that is measured beside it: of grpcio's own server that computes
nothing, of NumPy's products, of requests by hand, of publishing beside few versions. So machines
can be compared, within limits, and their load matters less. Shown are the median of the rounds,
the interval that holds 95 % of such medians, and the change since benchmarks/results/quick.json.
A figure is marked if all of its interval is above the landed one by more than 5 %.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np

from benchmarks.client import by_hand
from benchmarks.compare.load import measure
from benchmarks.compare.numpy_alone import numpy_alone
from benchmarks.compare.processes import Running
from benchmarks.compare.report import machine
from benchmarks.compare.rounds import (
    BATCH,
    MANY,
    ONE,
    SHAPES,
    SHARED,
    WARM_UP_SECONDS,
    running,
    wait_until_right,
)
from benchmarks.compare.servers import SERVERS, Server, ours
from benchmarks.compare.workload import Workload, make, publish_small
from benchmarks.compare_commits import interval
from benchmarks.training import Contender
from benchmarks.training import running as training
from mlpserve.v1 import prediction_pb2_grpc
from mlpserve_client import Client

RESULTS = Path(__file__).parent / "results" / "quick.json"
TOLERANCE = 1.05
LOAD_SECONDS, NUMPY_SECONDS = 0.3, 0.15
ECHO = next(server for server in SERVERS if "echo" in server.name)
CLIENT_ROWS, REQUEST_ROWS = 20_000, 1003
TRAINING_ROWS, TRAINING_EPOCHS = 12_800, 2
FEW, MANY_VERSIONS, PUBLISHED = 10, 500, 5

# The ratios of one round, by what they are of.
Figures = dict[str, float]


def main() -> int:
    """Measure, compare with the landed figures, and print a table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="quick-") as name, ExitStack() as stack:
        workload = make(Path(name))
        parts = [
            _serving(workload, stack),
            _training(Path(name), stack),
            _publishing(Path(name)),
        ]
        for part in parts:
            part()  # warm
        rounds: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds}", file=sys.stderr)
            for part in parts:
                for figure, ratio in part().items():
                    rounds[figure].append(ratio)
    landed = json.loads(RESULTS.read_text())["ratios"] if RESULTS.exists() else {}
    print(table(rounds, landed))
    if options.record:
        ratios = {figure: round(median(values), 3) for figure, values in rounds.items()}
        RESULTS.write_text(json.dumps({**machine(), "ratios": ratios}, indent=1) + "\n")
    return 0


def table(rounds: Mapping[str, Sequence[float]], landed: Mapping[str, float]) -> str:
    """Return in Markdown each figure, what it was when it landed, and a mark if it is worse."""
    lines = ["| less is better | ratio | 95 % | landed | |", "|---|---:|---:|---:|---|"]
    for figure, values in rounds.items():
        (low, high), before = interval(values), landed.get(figure)
        cells = [figure, f"{median(values):.3f}", f"{low:.3f} to {high:.3f}"]
        cells += ["", "new"] if before is None else [f"{before:.3f}", _change(values, before)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _change(values: Sequence[float], before: float) -> str:
    change = median(values) / before - 1
    worse = interval(values)[0] > before * TOLERANCE
    return f"{change:+.1%}{' WORSE' if worse else ''}"


def _serving(workload: Workload, stack: ExitStack) -> Callable[[], Figures]:
    one_worker = ours("--workers 1")
    mine = stack.enter_context(_warm(one_worker, workload))
    echo = stack.enter_context(_warm(ECHO, workload))
    target = f"127.0.0.1:{mine.port}"
    client = stack.enter_context(Client(target))
    stub = prediction_pb2_grpc.PredictionServiceStub(
        stack.enter_context(grpc.insecure_channel(target))
    )
    images = np.tile(workload.pixels, (CLIENT_ROWS // len(workload.pixels), 1))

    def measure_round() -> Figures:
        single, batch = one_worker.calls(workload)
        figures: Figures = {}
        for load in (SHARED, MANY, ONE):
            measured = partial(measure, call=single, shape=SHAPES[load], seconds=LOAD_SECONDS)
            us, them = (measured(server, folder=workload.folder) for server in (mine, echo))
            figures[f"CPU of a call, {load}; echo"] = us.cpu_us / them.cpu_us
            if load == ONE:
                figures["p50 of a call, 1 connection; echo"] = us.p50_us / them.p50_us
        batches = measure(mine, batch, SHAPES[ONE], LOAD_SECONDS, workload.folder)
        alone = numpy_alone(workload, NUMPY_SECONDS)
        figures[f"CPU of {BATCH}; NumPy alone"] = batches.cpu_us / alone.batch_us
        figures["time of predict_batch; requests by hand"] = _ratio_of_times(
            lambda: client.predict_batch(images), lambda: by_hand(stub, images, REQUEST_ROWS)
        )
        return figures

    return measure_round


@contextmanager
def _warm(server: Server, workload: Workload) -> Iterator[Running]:
    with running(server, workload) as process:
        wait_until_right(process, server, workload)
        single, _ = server.calls(workload)
        measure(process, single, SHAPES[SHARED], WARM_UP_SECONDS, workload.folder)
        yield process


def _training(folder: Path, stack: ExitStack) -> Callable[[], Figures]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (TRAINING_ROWS, 784), dtype=np.uint8)
    labels = rng.integers(0, 10, TRAINING_ROWS)
    path = folder / "images.npz"
    np.savez(path, x=images, y=labels, test_x=images[:100], test_y=labels[:100])
    names = ("mlpserve, 1 process", "matrix products, 1 thread")
    ours_, products = (stack.enter_context(training(name, Path(), str(path))) for name in names)

    def measure_round() -> Figures:
        return {"step of training; its products": _step(ours_) / _step(products)}

    return measure_round


def _step(contender: Contender) -> float:
    """Return the microseconds of a fast step."""
    fast: float = contender.train(0, TRAINING_EPOCHS)["steps"][0]
    return fast


def _publishing(folder: Path) -> Callable[[], Figures]:
    few, many = (folder / name for name in ("few", "many"))
    publish_small(few, FEW)
    publish_small(many, MANY_VERSIONS)

    def measure_round() -> Figures:
        ratio = _ratio_of_times(
            lambda: publish_small(many, PUBLISHED),
            lambda: publish_small(few, PUBLISHED),
            time.process_time,  # disks vary too much
        )
        return {f"CPU of publishing beside {MANY_VERSIONS} versions; {FEW}": ratio}

    return measure_round


def _ratio_of_times(
    work: Callable[[], object],
    other: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    times = []
    for one in (work, other):
        started = clock()
        one()
        times.append(clock() - started)
    return times[0] / times[1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured (20)")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
