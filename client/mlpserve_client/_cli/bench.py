"""The command `mlpserve-client bench`: a closed loop, with one call at a time per caller."""

import json
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np

from mlpserve_client._sync import Client

_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}


def bench(client: Client, arguments: Namespace) -> int:
    """Measure a server for a few seconds, or until Ctrl-C."""
    figures, interrupted = measure(client, arguments.seconds, arguments.threads, arguments.batch)
    code = 130 if interrupted else 0
    if arguments.json:
        print(json.dumps(figures))
        return code
    ended = "interrupted after " if interrupted else ""
    seconds = f"{ended}{figures['seconds']:.3g} s"
    print(f"{arguments.threads} threads, {arguments.batch} rows a call, {seconds}")
    print(f"{figures['calls_per_second']:,.0f} calls/s, {figures['rows_per_second']:,.0f} rows/s")
    print("milliseconds: " + ", ".join(f"{key} {figures[key]:.2f}" for key in _PERCENTILES))
    return code


def measure(
    client: Client, seconds: float, threads: int, batch: int
) -> tuple[dict[str, float], bool]:
    """Call from several threads at once; return the figures and whether Ctrl-C ended it.

    Args:
        client: the client to call with.
        seconds: duration.
        threads: number of callers.
        batch: rows of each call.

    Returns:
        Duration in seconds, calls and rows per second, percentiles of latency in milliseconds;
        and whether it was interrupted.

    Raises:
        MlpserveError: a call failed.

    """
    call = _call(client, batch)
    call()  # connects, so that the figures do not include it
    enough, interrupted = threading.Event(), False
    loops: list[Future[list[float]]] = []
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        try:
            loops.extend(pool.submit(_loop, call, enough) for _ in range(threads))
            wait(loops, seconds, FIRST_EXCEPTION)
        except KeyboardInterrupt:
            if not loops:
                raise
            interrupted = True
        finally:
            enough.set()  # also on a failed call
        latencies = np.concatenate([loop.result() for loop in loops]) * 1000
    elapsed = time.perf_counter() - started
    rate = len(latencies) / elapsed
    percentiles = np.percentile(latencies, list(_PERCENTILES.values()))
    figures = {
        "seconds": elapsed,
        "calls_per_second": rate,
        "rows_per_second": rate * batch,
        **dict(zip(_PERCENTILES, percentiles.tolist(), strict=True)),
    }
    return figures, interrupted


def _call(client: Client, batch: int) -> Callable[[], object]:
    model = client.model()
    # 0 and 1 are valid raw values whatever the model's maximum is. Real numbers are floats, and so
    # are values that were scaled before the training: as integers they would be refused.
    was_scaled = model.input_values is not None and model.input_values.kind in ("binary", "scaled")
    dtype = np.float32 if model.input_kind == "real" or was_scaled else np.uint8
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
