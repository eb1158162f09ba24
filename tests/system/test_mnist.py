"""The real MNIST, through the whole loop."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpserve_client import Client
from mlpserve_model import Store
from tests.support.mnist import MNIST, load_mnist, needs_mnist


@pytest.mark.slow
@needs_mnist
def test_mnist_reaches_98_percent_and_the_same_over_grpc(store: Store, server: str) -> None:
    program = str(Path(sys.executable).with_name("mlpserve-trainer"))
    command = [program, "train", "--dataset", "mnist", "--data-dir", str(MNIST), "--json"]
    run = subprocess.run(
        [*command, "--store", str(store.folder.parent)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    holdout = load_mnist().holdout
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
