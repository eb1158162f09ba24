"""Versions change under at least 500 calls a second: no call fails, is torn or goes backwards."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve_model import Store
from tests.support.publishing import DRAFT, publish_to
from tests.support.server import Process
from tests.support.timed_callers import TimedCallers, descriptors, p99, resident

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

IMAGES = np.random.default_rng(1).random((16, 3, 4), dtype=np.float32)
CALLS_PER_SECOND = 500
MEBIBYTE = 2**20

# The broken twin: a swap in which the version's name comes first and its weights a moment later.
TORN = """
import time
from mlpserve_model import StoredModel
from mlpserve_server.lifecycle.manager import ModelManager

switch_to = ModelManager._switch_to

def torn(self, model):
    if self.current is not None:
        self.current = StoredModel(model.manifest, self.current.weights)
        time.sleep(0.02)
    return switch_to(self, model)

ModelManager._switch_to = torn
"""

Start = Callable[[str], tuple[Process, str]]


class Publisher:
    """Publishes versions and waits until the server has swapped to each.

    Attributes:
        expected: what each version answers to IMAGES, by its number.
        swaps: when the server said that it serves a version.

    """

    def __init__(self, store: Store, server: Process) -> None:
        self.expected: dict[int, NDArray[np.float32]] = {}
        self.swaps: list[float] = []
        self._store, self._server = store, server

    def publish(self) -> None:
        version = publish_to(self._store, seed=len(self.expected), promote=False, draft=DRAFT)
        inputs = IMAGES.reshape(len(IMAGES), -1)
        self.expected[version] = self._store.load(version).predict(inputs)
        previous = self._store.aliases().get("champion")
        self._store.move_alias(
            "champion", version, expected=previous, event="promote", reason="a test"
        )
        while self._server.event("serving")["version"] != version:
            pass
        self.swaps.append(time.monotonic())
        if version % 50 == 0:
            self._store.prune(5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", "mnist")


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(before: str) -> tuple[Process, str]:
            arguments = ["--store", str(store.folder.parent), "--listen", "127.0.0.1:0"]
            process = Process(*arguments, "--poll-seconds", "0.02", "--workers", "1", before=before)
            stack.callback(process.process.communicate)
            stack.callback(process.process.kill)
            return process, process.event("listening")["address"]

        yield start


@pytest.mark.parametrize(
    ("reloads", "spaced"), [(200, 4), pytest.param(10_000, 30, marks=pytest.mark.soak)]
)
def test_no_call_fails_is_torn_or_goes_backwards_while_versions_change(
    reloads: int, spaced: int, store: Store, start: Start
) -> None:
    process, address = start("")
    publisher, pid = Publisher(store, process), process.process.pid
    publisher.publish()
    memory: list[int] = []
    with TimedCallers(address, IMAGES) as callers:
        callers.wait_for_more(100)
        for _ in range(spaced):
            publisher.publish()
            time.sleep(2)  # the second after a swap, and one beside it
        spaced_swaps, opened = publisher.swaps[1:], descriptors(pid)
        for _ in range(reloads):
            publisher.publish()
            memory.append(resident(pid))
        assert descriptors(pid) <= opened
    after, beside = _seconds_after_and_beside(callers, spaced_swaps)
    early, late = median(memory[len(memory) // 3 :][:50]), median(memory[-50:])
    print(
        f"\n{len(callers.answers)} calls, {callers.calls_per_second:.0f}/s, over "
        f"{len(publisher.swaps)} swaps: {len(callers.failures)} failed; p99 {p99(after):.1f} ms in "
        f"the second after a swap, {p99(beside):.1f} ms beside it; memory "
        f"{early / MEBIBYTE:.1f} MiB after a third, {late / MEBIBYTE:.1f} at the end; "
        f"{opened} descriptors"
    )
    assert callers.failures == []
    assert callers.torn(publisher.expected) == []
    assert callers.backwards() == []
    assert len({answer.version for answer in callers.answers}) > reloads / 2
    assert late < 1.05 * early


def _seconds_after_and_beside(
    callers: TimedCallers, swaps: list[float]
) -> tuple[list[float], list[float]]:
    """How long the calls took that began within a second after a swap, and those a second later."""
    after, beside = list[float](), list[float]()
    for answer in callers.answers:
        since = min((answer.began - swap for swap in swaps if swap <= answer.began), default=9.0)
        if since < 2:
            (after if since < 1 else beside).append(answer.seconds)
    return after, beside


def test_a_swap_of_the_name_before_the_weights_is_caught(store: Store, start: Start) -> None:
    process, address = start(TORN)
    publisher = Publisher(store, process)
    publisher.publish()
    with TimedCallers(address, IMAGES) as callers:
        callers.wait_for_more(100)
        for _ in range(20):
            publisher.publish()
    torn = callers.torn(publisher.expected)
    print(f"\nthe name before the weights: {len(torn)} torn answers of {len(callers.answers)}")
    assert torn
