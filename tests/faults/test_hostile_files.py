"""What a damaged version costs its reader: time and memory until it is rejected."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import CorruptVersion, Store
from tests.support.publishing import publish_to
from tests.support.timed_callers import p99

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

MEBIBYTE = 2**20
FILES = ("model.npz", "golden.npz", "manifest.json")
COUNTS = [1000, pytest.param(200_000, marks=pytest.mark.soak)]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with a few of them changed, taken out, or in another place."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    part = data[start : start + length]
    match int(rng.integers(4)):
        case 0:
            return data[:start] + rng.bytes(len(part)) + data[start + len(part) :]
        case 1:
            return data[:start] + data[start + length :]
        case 2:
            return data[:start] + part + data[start:]
        case _:
            return data[:start]


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_version_is_rejected_in_little_time_and_memory(
    count: int, tmp_path: Path
) -> None:
    store, rng = Store(tmp_path / "models", "mnist"), np.random.default_rng(18)
    version = publish_to(store)
    kept = {name: (store.path(version) / name).read_bytes() for name in FILES}
    weights, seconds, peak, rejected = store.load(version).weights, list[float](), 0, 0
    tracemalloc.start()
    try:
        for number in range(count):
            path = store.path(version) / FILES[number % 3]
            path.unlink()  # some file systems take milliseconds to truncate
            path.write_bytes(damaged(kept[path.name], rng))
            tracemalloc.reset_peak()
            before, began = tracemalloc.get_traced_memory()[0], time.thread_time()
            try:
                found = Store(store.root, store.model).load(version)
            except CorruptVersion:
                rejected += 1
            else:
                assert all(map(np.array_equal, found.weights[0], weights[0]))
            seconds.append(time.thread_time() - began)
            peak = max(peak, tracemalloc.get_traced_memory()[1] - before)
            path.unlink()
            path.write_bytes(kept[path.name])
    finally:
        tracemalloc.stop()
    print(
        f"\n{count} damaged versions, {rejected} rejected, the others the same: p99 "
        f"{p99(seconds):.1f} ms of CPU, at most "
        f"{max(seconds) * 1000:.1f}; {peak / MEBIBYTE:.2f} MiB"
    )
    assert rejected > 0.9 * count
    assert peak < 32 * MEBIBYTE
    assert np.median(seconds) < 0.05
