"""Thirty-two threads that each make the server load versions, while it swaps."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlpserve_model import Store
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from tests.support.publishing import publish_to

pytestmark = pytest.mark.faults

THREADS, VERSIONS = 32, 6
LOADS = [32, pytest.param(1024, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]


@pytest.mark.parametrize("loads", LOADS)
def test_threads_that_force_loads_at_once_block_neither_each_other_nor_the_swap(
    loads: int, tmp_path: Path
) -> None:
    store = Store(tmp_path / "models", "mnist")
    digests = {}
    for seed in range(VERSIONS):
        version = publish_to(store, seed)
        digests[version] = store.manifest(version).digest
    loader = Loader(Store(store.root, store.model), standby=1)  # so that most must be loaded
    counted = _counting(loader)
    manager = ModelManager(loader, "champion")
    assert manager.poll()
    done, polls = threading.Event(), 0

    def force(number: int) -> int:
        wrong = 0
        for load in range(loads):
            if done.is_set():  # another thread has failed
                break
            version = 1 + (number + load) % VERSIONS
            model = manager.get(version)
            wrong += (model.manifest.version, model.manifest.digest) != (version, digests[version])
        return wrong

    def swap() -> int:
        swaps, version = 0, VERSIONS
        while not done.is_set():
            target = 1 + version % VERSIONS
            store.move_alias("champion", target, expected=version, event="promote", reason="a test")
            version = target
            swaps += manager.poll()
            assert manager.get().manifest.version == version
        return swaps

    with ThreadPoolExecutor(THREADS + 1) as pool:
        swapping = pool.submit(swap)
        try:
            wrong = sum(pool.map(force, range(THREADS)))
        finally:
            done.set()
        polls = swapping.result(timeout=60)
    print(
        f"\n{THREADS} threads x {loads}: {counted()} loads, {polls} swaps meanwhile, {wrong} wrong"
    )
    assert wrong == 0
    assert counted() > THREADS * loads / 4
    assert polls > 0
    assert manager.get().manifest.version == store.resolve("champion")


def _counting(loader: Loader) -> Callable[[], int]:
    """Count the loads of a loader from here on, of which there may be one at a time."""
    loads, load, loading = [0], loader._load, threading.Lock()

    def counted(version: int) -> object:
        assert loading.acquire(blocking=False), "two loads at once"
        try:
            loads[0] += 1
            return load(version)
        finally:
            loading.release()

    loader._load = counted  # type: ignore[method-assign, assignment]
    return lambda: loads[0]
