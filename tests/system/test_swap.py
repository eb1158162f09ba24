"""Publishing under constant calls: none fails, and every answer is of the version it names."""

import time
from collections.abc import Callable

import pytest

from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.system import Callers


@pytest.mark.parametrize("publishes", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_publishing_in_a_row_fails_no_call_and_mixes_no_versions(
    publishes: int, store: Store, server: str, publish: Callable[[], int], callers: Callers
) -> None:
    publish()
    with Client(server) as client:
        client.wait_until_ready(timeout=10)
    with callers:
        for _ in range(publishes):
            last = publish()
            time.sleep(0.02)
        callers.wait_for(last)
    versions = [version for _, version, _ in callers.answers]
    print(
        f"\n{publishes} publishes: {len(versions)} calls by 4 threads, {len(callers.failures)} "
        f"failed, {len(set(versions))} versions answered"
    )
    assert callers.failures == []
    assert callers.differing(store) == []
    assert len(set(versions)) > publishes / 2, "the server followed what was published"


def test_the_comparison_of_answers_has_teeth(
    store: Store, server: str, publish: Callable[[], int], callers: Callers
) -> None:
    publish()
    publish()
    with callers:
        callers.wait_for(2)
    callers.answers[:] = [(row, 1, p) for row, _, p in callers.answers]
    assert callers.differing(store) == [1]
