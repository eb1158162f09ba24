"""A trainer killed at any moment of publishing harms neither the store nor the server."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpserve_client import Client
from mlpserve_model import CorruptVersion, Store
from tests.support.system import Callers

COMMAND = str(Path(sys.executable).with_name("mlpserve-trainer"))
TRAIN = ["train", "--dataset", "digits", "--hidden", "8", "--epochs", "1", "--min-accuracy", "0"]
# From the last epoch to the end: evaluation, gate, publication, promotion.
PUBLISHING_SECONDS = 0.15


@pytest.mark.faults
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killing_trainers_leaves_whole_versions_and_a_server_that_answers(
    kills: int, store: Store, server: str, publish: Callable[[], int], callers: Callers
) -> None:
    rng = random.Random(0)
    publish()
    with Client(server) as client:
        client.wait_until_ready(timeout=10)
    callers.pause = 0.01  # enough to notice a gap, and the trainers get their turn
    with callers:
        for _ in range(kills):
            kill_trainer(store.folder.parent, rng.uniform(0, PUBLISHING_SECONDS))
            faults = {v: fault for v in store.versions() if (fault := fault_of(store, v))}
            assert faults == {}
            store.prune(keep=5)
        last = publish()
        callers.wait_for(last)
    print(f"\n{kills} kills: {last} versions, {len(callers.answers)} calls answered")
    assert callers.failures == []
    litter = [p.name for p in store.folder.rglob("*.tmp")]
    assert litter == [], "the next publish sweeps what the killed ones left"
    assert store.aliases()["champion"] == last


def kill_trainer(folder: Path, seconds: float) -> None:
    """Kill a real trainer some time after its last epoch."""
    command = [COMMAND, *TRAIN, "--store", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr
    assert any(b"epoch=1 epochs=1 " in line for line in process.stderr)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def fault_of(store: Store, version: int) -> str | None:
    try:
        store.verify(version)
    except CorruptVersion as error:
        return str(error)
    return None
