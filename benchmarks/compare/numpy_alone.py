"""What the network alone costs in NumPy, in this process, with no server around it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from benchmarks.compare.workload import BATCH_ROWS, Workload
from mlpserve_model import forward, scale_pixels

__all__ = ["NumpyAlone", "numpy_alone"]


class NumpyAlone(NamedTuple):
    """Microseconds of CPU time."""

    row_us: float
    batch_us: float

    @property
    def rows_s(self) -> float:
        """Rows a second in batches."""
        return BATCH_ROWS / self.batch_us * 1e6


def numpy_alone(workload: Workload, seconds: float) -> NumpyAlone:
    """One float32 row; a batch of uint8 pixels with their scaling. On one thread."""
    network, row = workload.network, workload.row[None]
    with threadpool_limits(1):
        return NumpyAlone(
            _cpu_us(lambda: forward(network, workload.weights, row), seconds),
            _cpu_us(
                lambda: forward(network, workload.weights, scale_pixels(workload.pixels, 255)),
                seconds,
            ),
        )


def _cpu_us(work: Callable[[], Any], seconds: float) -> float:
    count = 0
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return (time.process_time() - cpu) / count * 1e6
