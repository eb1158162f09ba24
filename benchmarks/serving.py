"""What a call costs: the server's CPU time and latency, beside the bare forward pass.

    python benchmarks/serving.py [--seconds 3] [--rounds 3]

Starts a real server with a 784-128-10 network in a process of its own and calls it with one
call in flight, with 64, and with batches of 1,000 images. CPU time is the server's alone, so it
says more than throughput where client and server share the cores. Medians over the rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_client import Client
from mlpserve_model import (
    CHAMPION,
    Dataset,
    Gate,
    Manifest,
    Network,
    Store,
    initialise,
    scale_pixels,
)

Figures = dict[str, float]

DRAFT = Manifest(
    model="mnist",
    network=Network((784, 128, 10)),
    input_shape=(28, 28),
    input_maximum=255,
    class_names=tuple("0123456789"),
    dataset=Dataset("random", "sha256:0", "none"),
    recipe={},
    seed=0,
    libraries={},
    metrics={},
    gate=Gate("PROMOTED"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, "mnist")
        publish(store)
        with running_server(Path(folder)) as (address, pid):
            rounds = [measure(address, pid, options.seconds, store) for _ in range(options.rounds)]
    report(rounds)


def publish(store: Store) -> None:
    rng = np.random.default_rng(0)
    golden = rng.random((8, 784), dtype=np.float32)
    version = store.publish(DRAFT, initialise(DRAFT.network, rng), golden).version
    store.move_alias(CHAMPION, version, expected=None, event="promote", reason="benchmark")


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[str, int]]:
    program = str(Path(sys.executable).with_name("mlpserve-server"))
    command = [program, "--store", str(folder), "--listen", "127.0.0.1:0", "--log-format", "json"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    address = json.loads(server.stderr.readline())["address"]
    try:
        with Client(address) as client:
            client.wait_until_ready(timeout=30)
        yield address, server.pid
    finally:
        server.terminate()
        server.communicate(timeout=30)


def measure(address: str, pid: int, seconds: float, store: Store) -> dict[str, Figures]:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (1000, 784), dtype=np.uint8)
    row = rng.random(784, dtype=np.float32)
    single = pb.PredictRequest(instance=tensor(pb.DATA_TYPE_FLOAT32, row))
    batch = pb.BatchPredictRequest(instances=tensor(pb.DATA_TYPE_UINT8, pixels))
    path = "/mlpserve.v1.PredictionService"
    return {
        "1 in flight": load(address, pid, f"{path}/Predict", single, 1, seconds),
        "64 in flight": load(address, pid, f"{path}/Predict", single, 64, seconds),
        "1,000 rows": load(address, pid, f"{path}/BatchPredict", batch, 1, seconds),
        "bare 1,000 rows": bare_forward(store, pixels, seconds),
    }


def tensor(dtype: Any, values: Any) -> pb.Tensor:
    return pb.Tensor(dtype=dtype, shape=values.shape, data=values.tobytes())


def load(
    address: str, pid: int, method: str, request: Any, in_flight: int, seconds: float
) -> Figures:
    """Keep so many calls in flight, each with the same bytes; count the server's CPU time."""
    data = request.SerializeToString()
    latencies: list[float] = []
    free = threading.Semaphore(in_flight)
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        call: Any = channel.unary_unary(method)
        call(data)
        before, started = cpu_seconds(pid), time.perf_counter()
        while time.perf_counter() - started < seconds:
            free.acquire()
            sent = time.perf_counter()

            def done(answer: Any, sent: float = sent) -> None:
                answer.result()
                latencies.append(time.perf_counter() - sent)
                free.release()

            call.future(data).add_done_callback(done)
        for _ in range(in_flight):
            free.acquire()
        elapsed, used = time.perf_counter() - started, cpu_seconds(pid) - before
    return {
        "cpu_us": used / len(latencies) * 1e6,
        "calls_s": len(latencies) / elapsed,
        "p50_us": float(np.percentile(latencies, 50)) * 1e6,
        "p99_us": float(np.percentile(latencies, 99)) * 1e6,
    }


def bare_forward(store: Store, pixels: Any, seconds: float) -> Figures:
    """The same matrix products with nothing around them, in this process."""
    model = store.load(1)
    x = scale_pixels(pixels, 255)
    times = []
    started, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(1):  # as in the server
        while time.perf_counter() - started < seconds / 3:
            begun = time.perf_counter()
            model.predict(x)
            times.append(time.perf_counter() - begun)
    return {
        "cpu_us": (time.process_time() - cpu) / len(times) * 1e6,
        "calls_s": len(times) / (time.perf_counter() - started),
        "p50_us": float(np.percentile(times, 50)) * 1e6,
        "p99_us": float(np.percentile(times, 99)) * 1e6,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(rounds: list[dict[str, Figures]]) -> None:
    columns = {"cpu_us": "CPU µs", "calls_s": "calls/s", "p50_us": "p50 µs", "p99_us": "p99 µs"}
    print(f"{'':16}" + "".join(f"{title:>10}" for title in columns.values()))
    for name in rounds[0]:
        middle = {key: median(figures[name][key] for figures in rounds) for key in columns}
        print(f"{name:16}" + "".join(f"{middle[key]:10.0f}" for key in columns))
    print(json.dumps(rounds))


if __name__ == "__main__":
    main()
