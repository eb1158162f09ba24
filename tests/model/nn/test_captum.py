"""Attributions are those of Captum's DeepLift, an implementation that is not ours."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_model.nn.activations import HIDDEN
from mlpserve_model.nn.attributions import attributions
from mlpserve_model.nn.network import Layer, Network, Weights, initialise

PYTHON = Path(__file__).parents[3] / ".venv-captum" / "bin" / "python"
USER = Path(__file__).with_name("captum_user.py")

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="Captum is not installed: make test-captum"
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("sizes", [(784, 10), (784, 128, 10), (784, 64, 48, 32, 10)])
def test_captum_finds_the_same(sizes: tuple[int, ...], activation: str, tmp_path: Path) -> None:
    network = Network.uniform(sizes, activation)
    rng = np.random.default_rng(0)
    weights: Weights = tuple(
        Layer(2 * w.astype(np.float64), rng.normal(size=b.shape))
        for w, b in initialise(network, rng)
    )
    x, baseline = rng.random((100, 784)), rng.random(784)
    found = attributions(network, weights, x, baseline)

    arrays: dict[str, Any] = {"x": x, "baseline": baseline, "labels": found.labels}
    for number, layer in enumerate(weights):
        arrays |= {f"w{number}": layer.w, f"b{number}": layer.b}
    given, answer = tmp_path / "given.npz", tmp_path / "answer.npz"
    np.savez(given, activation=activation, **arrays)
    command = [str(PYTHON), str(USER), str(given), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr

    with np.load(answer) as file:
        expected = file["attributions"]
    error, largest = np.abs(found.values - expected).max(), np.abs(expected).max()
    print(f"\n{sizes} {activation}: {error:.1e} apart, of values of up to {largest:.2f}")
    assert largest > 0
    assert error <= 1e-5 * min(1, largest)
