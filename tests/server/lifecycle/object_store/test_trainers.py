"""Two real trainers at once over an object store, and a server that follows them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlpserve_model import CHAMPION, Store

pytestmark = pytest.mark.slow

TRAINER = str(Path(sys.executable).with_name("mlpserve-trainer"))


@pytest.mark.timeout(300)
def test_the_second_of_two_trainers_is_judged_against_the_first_and_the_champion_goes_forward(
    address: str, tmp_path: Path
) -> None:
    environment = os.environ | {"MLPSERVE_STORE": address, "MLPSERVE_CACHE_DIR": str(tmp_path)}
    command = [
        TRAINER, "train", "--model", "digits", "--dataset", "digits", "--epochs", "3",
        "--min-accuracy", "0.5", "--json",
    ]  # fmt: skip
    trainers = [
        subprocess.Popen(
            [*command, "--seed", str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for seed in range(2)
    ]
    outputs = [trainer.communicate() for trainer in trainers]
    assert {trainer.returncode for trainer in trainers} <= {0, 3}, outputs
    outcomes = {o["version"]: o for o in (json.loads(out) for out, _ in outputs)}
    assert sorted(outcomes) == [1, 2]
    assert outcomes[1]["verdict"] == "PROMOTED"
    assert any("no champion yet" in reason for reason in outcomes[1]["reasons"])
    assert any("champion 1" in reason for reason in outcomes[2]["reasons"])
    store = Store(address, "digits")
    assert store.resolve(CHAMPION) == (2 if outcomes[2]["verdict"] == "PROMOTED" else 1)
    moves = [e["version"] for e in store.history() if e["event"] == "promote"]
    assert moves == sorted(moves)
    assert {e["version"] for e in store.history() if e["event"] == "publish"} == {1, 2}
    for version in store.versions():
        store.verify(version)
