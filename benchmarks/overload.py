"""How a server holds its shape: five times what it can do, and the largest batches beside calls.

    python benchmarks/overload.py [--hidden 4096,4096] [--times 5] [--transport auto]

One worker, in front of it a generator that sends when the time has come, whatever became of the
calls before. `--hidden` is a network that is slow enough for the generator to be faster. Loaded
means: at a tenth of the capacity, which is what 4 calls in flight reach; then at so many times
the capacity; then at a tenth again. The same at a tenth beside a client that sends batches of
the largest size without a pause, to 784-128-10. The load runs on the same cores as the server.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare.contracts import Call, own_contract
from benchmarks.compare.environments import Absent, open_loop
from benchmarks.compare.load import Shape, check_generator, measure
from benchmarks.compare.processes import Running
from benchmarks.compare.report import machine
from benchmarks.compare.rounds import running, wait_until_right
from benchmarks.compare.servers import ours
from benchmarks.compare.workload import NETWORK, Workload, make
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Network

RESULTS = Path(__file__).parent / "results" / "overload.json"
OK, RESOURCE_EXHAUSTED = 0, 8
MAX_BATCH = 8192
CONNECTIONS = 32
TIMEOUT_MS = 5000
IN_FLIGHT = Shape(4, 1)


class Answers(NamedTuple):
    """What became of the calls of one phase; times in milliseconds."""

    offered_s: float
    accepted_s: float
    p50: float
    p99: float
    refused: int
    refused_p99: float
    others: int


def main() -> int:
    options = _options()
    try:
        check_generator()
        generator = open_loop()
    except Absent as reason:
        print(f"nothing measured: {reason}", file=sys.stderr)
        return 1
    hidden = tuple(map(int, options.hidden.split(",")))
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        folder = Path(text)
        overload = _overload(folder / "slow", Network((784, *hidden, 10)), generator, options)
        beside = _beside_batches(folder / "quick", generator, options)
    found = {"machine": machine(), "hidden": hidden, "overload": overload, "batches": beside}
    print(json.dumps(found["machine"]), _overload_table(overload, hidden), sep="\n\n")
    print(_batches_table(beside))
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hidden", default="4096,4096", help="the slow network's hidden layers")
    parser.add_argument("--times", type=float, default=5, help="times the capacity")
    parser.add_argument("--transport", default="auto", help="as the server has it")
    parser.add_argument(
        "--max-wait-seconds", type=float, default=0.005, help="as the server has it"
    )
    parser.add_argument("--seconds", type=float, default=5, help="length of a phase")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    return parser.parse_args()


def _overload(
    folder: Path, network: Network, generator: Path, options: argparse.Namespace
) -> dict[str, Any]:
    seconds, times = options.seconds, options.times
    with _server(folder, network, options) as (server, workload):
        call = own_contract(workload).single
        capacity = measure(server, call, IN_FLIGHT, seconds, folder).calls_s
        phases = [(capacity / 10, seconds), (capacity * times, seconds), (capacity / 10, seconds)]
        calls = _calls(generator, server, call, phases, folder)
    ends = np.cumsum([0, *(length for _, length in phases)])
    before, during, after = (_answers(calls, start, end) for start, end in pairwise(ends))
    recovered = _answers(calls, ends[2] + 1, ends[3])
    return {
        "capacity_s": capacity,
        "before": before._asdict(),
        "during": during._asdict(),
        "after": after._asdict(),
        "after a second": recovered._asdict(),
    }


def _beside_batches(folder: Path, generator: Path, options: argparse.Namespace) -> dict[str, Any]:
    with _server(folder, NETWORK, options) as (server, workload):
        call = own_contract(workload).single
        rate = measure(server, call, IN_FLIGHT, options.seconds, folder).calls_s / 10
        phase = [(rate, options.seconds)]
        alone = _answers(_calls(generator, server, call, phase, folder), 0, options.seconds)
        with _largest_batches(server, workload, options.seconds + 2, folder):
            calls = _calls(generator, server, call, phase, folder)
        beside = _answers(calls, 0, options.seconds)
    return {"alone": alone._asdict(), "beside": beside._asdict()}


@contextmanager
def _server(
    folder: Path, network: Network, options: argparse.Namespace
) -> Iterator[tuple[Running, Workload]]:
    folder.mkdir()
    workload = make(folder, network)
    bound = f"--max-wait-seconds {options.max_wait_seconds}"
    server = ours(f"--workers 1 --transport {options.transport} {bound}")
    with running(server, workload) as process:
        wait_until_right(process, server, workload)
        yield process, workload


def _calls(
    generator: Path,
    server: Running,
    call: Call,
    phases: list[tuple[float, float]],
    folder: Path,
) -> NDArray[np.float64]:
    """Each call: when it was due (s), its status code, how long it took from then (ms)."""
    request = folder / "request"
    request.write_bytes(call.message)
    shape = ",".join(f"{rate:.6f}:{length}" for rate, length in phases)
    command = [str(generator), f"127.0.0.1:{server.port}", call.path, str(request)]
    command += [str(CONNECTIONS), str(TIMEOUT_MS), shape]
    patience = sum(length for _, length in phases) + TIMEOUT_MS / 1000 + 30
    output = subprocess.run(command, capture_output=True, check=True, timeout=patience).stdout
    return np.loadtxt(output.splitlines(), ndmin=2) * [1e-6, 1, 1e-3]


def _answers(calls: NDArray[np.float64], start: float, end: float) -> Answers:
    due, codes, took = calls[(calls[:, 0] >= start) & (calls[:, 0] < end)].T
    accepted, refused = took[codes == OK], took[codes == RESOURCE_EXHAUSTED]
    p50, p99 = np.percentile(accepted, [50, 99]).tolist() if len(accepted) else (0.0, 0.0)
    length = end - start
    return Answers(
        len(due) / length,
        len(accepted) / length,
        p50,
        p99,
        len(refused),
        float(np.percentile(refused, 99)) if len(refused) else 0.0,
        len(due) - len(accepted) - len(refused),
    )


@contextmanager
def _largest_batches(
    server: Running, workload: Workload, seconds: float, folder: Path
) -> Iterator[None]:
    """Another client meanwhile, that always has one batch of the largest size under way."""
    pixels = np.resize(workload.pixels, (MAX_BATCH, 784))
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes())
    request = pb.BatchPredictRequest(instances=tensor).SerializeToString()
    body = folder / "batch"
    body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    url = f"http://127.0.0.1:{server.port}/mlpserve.v1.PredictionService/BatchPredict"
    command = ["h2load", "--duration", f"{seconds:.0f}", "--clients", "1", "--data", str(body)]
    command += ["--header", "content-type: application/grpc", "--header", "te: trailers", url]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield
    output, _ = other.communicate(timeout=seconds + 30)
    if " 0 failed" not in output:
        raise RuntimeError(f"the batches failed: {output[-300:]}")


def _overload_table(found: dict[str, Any], hidden: tuple[int, ...]) -> str:
    lines = [
        f"784-{'-'.join(map(str, hidden))}-10, capacity {found['capacity_s']:,.0f} calls/s",
        "",
        "| phase | offered/s | accepted/s | p50 ms | p99 ms | refused | their p99 ms | others |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for phase in ("before", "during", "after", "after a second"):
        a = Answers(**found[phase])
        lines.append(
            f"| {phase} | {a.offered_s:,.0f} | {a.accepted_s:,.0f} | {a.p50:.1f} | {a.p99:.1f} "
            f"| {a.refused:,} | {a.refused_p99:.1f} | {a.others} |"
        )
    ratio = found["during"]["p99"] / found["before"]["p99"]
    return "\n".join([*lines, "", f"p99 of the accepted: {ratio:.1f} times that of before", ""])


def _batches_table(found: dict[str, Any]) -> str:
    alone, beside = Answers(**found["alone"]), Answers(**found["beside"])
    return (
        f"Predict at {alone.offered_s:,.0f} calls/s: p99 {alone.p99:.1f} ms alone, "
        f"{beside.p99:.1f} ms beside batches of {MAX_BATCH} (p50 {alone.p50:.2f}, "
        f"{beside.p50:.2f}; refused or failed {alone.refused + alone.others}, "
        f"{beside.refused + beside.others})"
    )


if __name__ == "__main__":
    sys.exit(main())
