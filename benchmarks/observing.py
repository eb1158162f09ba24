"""What metrics and the access log cost a call, by themselves: no network, no model.

    python benchmarks/observing.py

CPU time of telling the journal of calls and their predictions, in groups that shared a product,
and of counting all of it, a thousand calls at a time. `benchmarks/costs.py` measures the same as
part of whole servers, where it is hardly more than what the figures cannot tell apart.
"""

import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from mlpserve_model import (
    DatasetInfo,
    FileInfo,
    Manifest,
    Network,
    Signature,
    Verdict,
)
from mlpserve_server.observability.access_log import AccessLog
from mlpserve_server.observability.aggregation import WorkerAggregator
from mlpserve_server.observability.metrics import MetricDelta
from mlpserve_server.observability.observer import CallInfo, Observer
from mlpserve_server.observability.recorder import Recorder

CALLS, ROUNDS, AT_ONCE = 40_000, 5, 1000
GROUPS = (1, 8, 16, 64)
METHOD = "/mlpserve.v1.PredictionService/Predict"
MANIFEST = Manifest(
    model="mnist", network=Network((784, 128, 10)),
    signature=Signature((28, 28), 255, tuple("0123456789")),
    dataset=DatasetInfo("none", "sha256:0", "none"), recipe={}, seed=0,
    libraries={}, metrics={}, version=1, created=datetime.now(UTC), golden_rows=1, document=b"",
    files={"model.npz": FileInfo("0" * 64, 0)}, gate=Verdict("PROMOTED"),
)  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    logging.basicConfig(level="INFO", filename=os.devnull)
    print(f"| CPU µs a call, calls in a group | {' | '.join(map(str, GROUPS))} |")
    print(f"|---|{'---:|' * len(GROUPS)}")
    for name, shares in {
        "nothing on": None,
        "metrics": [],
        "metrics, access log of 1 %": [0.01],
    }.items():
        cells = [
            median(_microseconds(_observer(shares), group) for _ in range(ROUNDS))
            for group in GROUPS
        ]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


def _observer(shares: list[float] | None) -> Observer:
    if shares is None:
        return Observer()
    totals = WorkerAggregator()

    def report(counts: MetricDelta) -> None:
        totals.add(0, counts)

    return Recorder(report, [AccessLog(share) for share in shares])


def _microseconds(observer: Observer, group: int) -> float:
    probabilities = np.random.default_rng(0).random((group, 10), dtype=np.float32)
    calls = [CallInfo(METHOD, ()) for _ in range(group)]
    started = time.process_time()
    for told in range(0, CALLS, group):
        observer.predicted(MANIFEST, probabilities)
        for call in calls:
            observer.ended(call, 0)
        if isinstance(observer, Recorder) and told % AT_ONCE < group:
            observer.flush()
    return (time.process_time() - started) / CALLS * 1e6


if __name__ == "__main__":
    main()
