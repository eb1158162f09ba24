"""The real MNIST, through the whole loop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpserve_client import Client
from mlpserve_model import Store
from mlpserve_trainer.datasets import DataLocations, load
from mlpserve_trainer.datasets.split import split

FOLDER = Path(
    os.environ.get("MLPSERVE_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data" / "mnist"
)


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no MNIST in {FOLDER}: set MLPSERVE_DATA_DIR")
def test_mnist_reaches_98_percent_and_the_same_over_grpc(store: Store, server: str) -> None:
    program = str(Path(sys.executable).with_name("mlpserve-trainer"))
    command = [program, "train", "--dataset", "mnist", "--data-dir", str(FOLDER), "--json"]
    run = subprocess.run(
        [*command, "--store", str(store.folder.parent)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    holdout = split(load("mnist", DataLocations(FOLDER, FOLDER)), 0.05).holdout
    with Client(server) as client:
        client.wait_until_ready(timeout=10)
        answers = client.predict_batch(holdout.inputs)
    accuracy = np.mean(answers.labels == holdout.labels)
    print(
        f"\nMNIST, 10,000 official test images: {outcome['metrics']['accuracy']:.4f} in training, "
        f"{accuracy:.4f} over gRPC, {outcome['seconds']:.1f} s"
    )
    assert len(answers) == 10_000
    assert answers.model.digest == outcome["digest"]
    assert accuracy == outcome["metrics"]["accuracy"] >= 0.98
