"""The command `mlpserve-client bench`: a closed loop, with one call at a time per caller."""

import json
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np

from mlpserve_client._sync import Client

_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}


def bench(client: Client, arguments: Namespace) -> int:
    """Measure a server for a few seconds."""
    figures = measure(client, arguments.seconds, arguments.threads, arguments.batch)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"{arguments.threads} threads, {arguments.batch} rows a call, {arguments.seconds:g} s")
    print(f"{figures['calls_per_second']:,.0f} calls/s, {figures['rows_per_second']:,.0f} rows/s")
    print("milliseconds: " + ", ".join(f"{key} {figures[key]:.2f}" for key in _PERCENTILES))
    return 0


def measure(client: Client, seconds: float, threads: int, batch: int) -> dict[str, float]:
    """Call from several threads at once and return the figures.

    Args:
        client: the client to call with.
        seconds: duration.
        threads: number of callers.
        batch: rows of each call.

    Returns:
        Duration in seconds, calls and rows per second, percentiles of latency in milliseconds.

    Raises:
        MlpserveError: a call failed.

    """
    call = _call(client, batch)
    call()  # connects, so that the figures do not include it
    enough = threading.Event()
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        try:
            loops = [pool.submit(_loop, call, enough) for _ in range(threads)]
            wait(loops, seconds, FIRST_EXCEPTION)
        finally:
            enough.set()  # on Ctrl-C, also while the loops are started, and on a failed call
        latencies = np.concatenate([loop.result() for loop in loops]) * 1000
    elapsed = time.perf_counter() - started
    rate = len(latencies) / elapsed
    percentiles = np.percentile(latencies, list(_PERCENTILES.values()))
    return {
        "seconds": elapsed,
        "calls_per_second": rate,
        "rows_per_second": rate * batch,
        **dict(zip(_PERCENTILES, percentiles.tolist(), strict=True)),
    }


def _call(client: Client, batch: int) -> Callable[[], object]:
    model = client.model()
    # 0 and 1 are valid raw values whatever the model's maximum is; real numbers are floats.
    dtype = np.float32 if model.input_kind == "real" else np.uint8
    shape = (batch, *model.input_shape)
    rows = np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8).astype(dtype)
    if batch == 1:
        return lambda: client.predict(rows[0])
    return lambda: client.predict_batch(rows)


def _loop(call: Callable[[], object], enough: threading.Event) -> list[float]:
    latencies: list[float] = []
    now = time.perf_counter()
    while not (enough.is_set() and latencies):
        call()
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return latencies
