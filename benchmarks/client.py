"""What the client costs a large batch: `predict_batch` beside requests of each size by hand.

    python benchmarks/client.py [--rows 50000] [--rounds 9]

By hand as many requests are in flight, nothing is checked and nothing gathered. The ways take
turns, so that all see the same disturbances; shown are medians and their share of the best by
hand. The server, that of `mlpserve_client.testing`, has a process of its own.
"""

import argparse
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from mlpserve_client import Client, _batches

SIZES = (334, 668, 1003, 1337, 2675)
SERVER = """
import sys
from mlpserve_client.testing import serve
with serve() as server:
    print(server.target, flush=True)
    sys.stdin.read()
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000, help="in a batch")
    parser.add_argument("--rounds", type=int, default=9, help="how often each way is taken")
    options = parser.parse_args()
    rows = np.random.default_rng(0).integers(0, 256, (options.rows, 784), dtype=np.uint8)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        rates = measure(process.stdout.readline().strip(), rows, options.rounds)
        process.communicate("")
    best = max(rate for way, rate in rates.items() if way != "client")
    for way, rate in rates.items():
        print(f"{way:24} {rate:9,.0f} rows/s  {rate / best:.2f}")


def measure(target: str, rows: npt.NDArray[np.uint8], rounds: int) -> dict[str, float]:
    """Return the median rows a second of each way."""
    with Client(target) as client, grpc.insecure_channel(target) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        ways: dict[str, Callable[[], object]] = {"client": lambda: client.predict_batch(rows)}
        for size in SIZES:
            ways[f"by hand, {size} a request"] = partial(by_hand, stub, rows, size)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, call in ways.items():
                started = time.perf_counter()
                call()
                rates[way].append(len(rows) / (time.perf_counter() - started))
    return {way: median(measured) for way, measured in rates.items()}


def by_hand(stub: Any, rows: npt.NDArray[np.uint8], size: int) -> None:
    """Predict the rows in requests of this size."""
    waiting: deque[Any] = deque()
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        tensor = prediction_pb2.Tensor(
            dtype=prediction_pb2.DATA_TYPE_UINT8, shape=part.shape, data=part.tobytes()
        )
        request = prediction_pb2.BatchPredictRequest(instances=tensor)
        waiting.append(stub.BatchPredict.future(request, timeout=60))
        if len(waiting) >= _batches._IN_FLIGHT:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()


if __name__ == "__main__":
    main()
