"""One model flooded at five times its capacity: what callers of another model notice of it.

    python benchmarks/fair_shares.py [--hidden 4096,4096] [--times 5] [--transport auto]
                                     [--flood Predict|BatchPredict]

One worker serves a slow network and 784-128-10. A client calls the quick one, one call at a time,
single calls and batches of 100 rows in turns: with nothing else, and while 64 connections send so
many times what the slow one answers them, in turns. The load runs on the same cores as the server.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np

from benchmarks.compare.processes import Running, free_port
from benchmarks.compare.report import machine
from benchmarks.compare.workload import NETWORK
from benchmarks.many_models import ROW, answered, publish, request
from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Network, Store

RESULTS = Path(__file__).parent / "results" / "fair_shares.json"
CONNECTIONS, STREAMS = 64, 16
SLOW, QUICK = "slow", "quick"
SINGLE, BATCH = "Predict", "BatchPredict"
BATCH_ROWS = 100
PATH = "/mlpserve.v1.PredictionService/"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hidden", default="4096,4096", help="hidden layers of the slow network")
    parser.add_argument("--times", type=float, default=5, help="times its capacity")
    parser.add_argument("--flood", choices=(SINGLE, BATCH), default=SINGLE, help="its calls")
    parser.add_argument("--transport", default="auto", help="as the server has it")
    parser.add_argument("--seconds", type=float, default=5, help="length of a phase")
    parser.add_argument("--rounds", type=int, default=3, help="alternations of the two phases")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        figures = measure(Path(text), options)
    known = json.loads(options.json.read_text()) if options.json.exists() else {}
    known["machine"] = machine()
    known[f"{options.flood}, {options.transport}"] = figures  # beside those of other floods
    options.json.write_text(json.dumps(known, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:28} {value}")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Serve both models and measure."""
    hidden = tuple(map(int, options.hidden.split(",")))
    publish(Store(folder / "store", SLOW), seed=0, network=Network((784, *hidden, 10)))
    publish(Store(folder / "store", QUICK), seed=0, network=NETWORK)
    (folder / "body").write_bytes(framed(REQUESTS[options.flood](SLOW)))
    port = free_port()
    command = [sys.executable, "-m", "mlpserve_server", "--store", str(folder / "store")]
    command += ["--model", f"{SLOW},{QUICK}", "--listen", f"127.0.0.1:{port}", "--workers", "1"]
    command += ["--transport", options.transport, "--log-level", "warning"]
    (folder / "log").mkdir()
    server = Running(command, port, {}, folder / "log")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for model in (SLOW, QUICK):
                answered(channel, model)
            capacity = flood(folder, port, options, options.seconds, None).communicate()[0]
            rate = answers_a_second(capacity, options.seconds) * options.times
            return {"capacity_s": round(rate / options.times)} | phases(
                channel, folder, port, rate, options
            )
    finally:
        server.stop()


def phases(
    channel: grpc.Channel, folder: Path, port: int, rate: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Call the quick model alone and beside the flood, in turns."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    refused = {"alone": 0, "beside": 0}
    for turn in range(2 * options.rounds):
        phase = ("alone", "beside")[turn % 2]
        loaded = phase == "beside"
        other = flood(folder, port, options, options.seconds + 2, rate) if loaded else None
        time.sleep(1)
        times, failures = calls(channel, options.seconds)
        for kind, measured in times.items():
            found[kind, phase] += measured
        refused[phase] += failures
        if other:
            other.communicate(timeout=options.seconds + 60)
    return {
        **{kind: compared(found[kind, "alone"], found[kind, "beside"]) for kind in REQUESTS},
        **{f"refused_{phase}": count for phase, count in refused.items()},
    }


def compared(alone: list[float], beside: list[float]) -> dict[str, Any]:
    """Return the latencies of calls alone and beside a flood, in milliseconds."""
    p99 = [float(np.percentile(times, 99)) for times in (alone, beside)]
    return {
        "calls": [len(alone), len(beside)],
        "p50_ms": [round(statistics.median(times), 2) for times in (alone, beside)],
        "p99_ms": [round(value, 2) for value in p99],
        "ratio_p99": round(p99[1] / p99[0], 1),
    }


def calls(channel: grpc.Channel, seconds: float) -> tuple[dict[str, list[float]], int]:
    """Return the milliseconds of each answered call to the quick model, and the calls refused."""
    kinds: list[tuple[str, Any, bytes]] = [
        (kind, channel.unary_unary(PATH + kind), encoded(QUICK))
        for kind, encoded in REQUESTS.items()
    ]
    times: dict[str, list[float]] = {kind: [] for kind in REQUESTS}
    refused, ends = 0, time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for kind, call, message in kinds:
            began = time.perf_counter()
            try:
                call(message, timeout=30)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                refused += 1
            else:
                times[kind].append((time.perf_counter() - began) * 1000)
    return times, refused


def flood(
    folder: Path, port: int, options: argparse.Namespace, seconds: float, rate: float | None
) -> "subprocess.Popen[str]":
    """Start calls of the slow model; without a rate, as many as it answers."""
    command = ["h2load", "--duration", f"{seconds:.0f}", "--data", str(folder / "body")]
    command += ["--clients", str(CONNECTIONS)]
    if rate is not None:
        command += ["--max-concurrent-streams", str(STREAMS), "--rps", f"{rate / CONNECTIONS:.3f}"]
    command += ["--header", "content-type: application/grpc", "--header", "te: trailers"]
    command.append(f"http://127.0.0.1:{port}{PATH}{options.flood}")
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def batch_request(model: str) -> bytes:
    """Return the bytes of a request of several rows to a model."""
    data = ROW.tobytes() * BATCH_ROWS
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[BATCH_ROWS, len(ROW)], data=data)
    selector = model_pb2.ModelSelector(name=model)
    return pb.BatchPredictRequest(instances=tensor, model=selector).SerializeToString()


REQUESTS: dict[str, Callable[[str], bytes]] = {SINGLE: request, BATCH: batch_request}


def answers_a_second(output: str, seconds: float) -> float:
    """Return how many requests a second h2load has seen answered."""
    found = re.search(r"(\d+) done", output)
    if not found:
        raise RuntimeError(f"h2load reports no calls: {output[-300:]}")
    return int(found[1]) / seconds


def framed(message: bytes) -> bytes:
    """Return a message as gRPC sends it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


if __name__ == "__main__":
    main()
