"""A network of another program, judged by labelled data."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve_model import CHAMPION, Signature, Store
from mlpserve_trainer import cli
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.release.foreign import read_holdout

NAMES = ("ash", "birch", "cedar")
# Rows of the unit matrix, noisy: the network that knows them is that matrix.
CENTRES = np.eye(3, 4, dtype=np.float32)


@dataclass(frozen=True)
class Import:
    """Runs `mlpserve-trainer import` on a network whose logits are ten times too large."""

    folder: Path
    store: Store

    def holdout(self, noise: float = 0.3, rows: int = 300) -> Path:
        rng = np.random.default_rng(1)
        labels = np.arange(rows) % 3
        x = CENTRES[labels] * 7 - 2 + rng.normal(0, 7 * noise, (rows, 4)).astype(np.float32)
        path = self.folder / "holdout.npz"
        np.savez(path, X=x, y=np.array(NAMES)[labels])
        return path

    def network(self, weights: NDArray[np.float32] = 10 * CENTRES.T) -> Path:
        path = self.folder / "network.npz"
        np.savez(path, w1=weights, b1=np.zeros(3, np.float32))
        return path

    def run(self, *more: str) -> int:
        where = ["--store", str(self.folder / "models"), "--model", "trees"]
        words = ["import", str(self.network()), "--holdout", str(self.holdout()), *where]
        named = ["--class-names", ",".join(NAMES), "--activations", "softmax"]
        try:
            return cli.main([*words, *named, *more])
        except SystemExit as end:
            return int(end.code or 0)


@pytest.fixture
def foreign(tmp_path: Path) -> Import:
    return Import(tmp_path, Store(tmp_path / "models", "trees"))


def test_a_network_that_passes_the_gate_is_calibrated_and_promoted(
    foreign: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    assert foreign.run() == 0
    manifest = foreign.store.manifest(foreign.store.aliases()[CHAMPION])
    assert manifest.gate.verdict == "PROMOTED"
    assert manifest.metrics["accuracy"] > 0.9
    assert 0 < foreign.store.load(1).weights[0].w.max() < 10  # the logits were too large
    assert manifest.dataset.split.startswith("judged by 240 rows of holdout.npz, sha256:")
    assert manifest.input_values is not None
    assert len(manifest.input_values.means) == 4  # explanations compare with them
    assert manifest.extra["imported"]["file"] == "network.npz"
    assert set(manifest.files) > {"report.html", "model_card.md", "reference.json"}
    assert b"trained elsewhere" in (foreign.store.path(1) / "report.html").read_bytes()
    assert "version 1: PROMOTED" in capsys.readouterr().out
    foreign.store.verify(1)


def test_without_calibration_the_weights_are_those_of_the_file(foreign: Import) -> None:
    assert foreign.run("--calibration", "none") == 0
    np.testing.assert_array_equal(foreign.store.load(1).weights[0].w, 10 * CENTRES.T)


def test_sigmoid_outputs_are_calibrated_as_a_softmax(foreign: Import) -> None:
    for more in (("--calibration", "none"), ()):
        assert foreign.run("--activations", "sigmoid", *more) == 0
    plain, calibrated = (foreign.store.manifest(version) for version in (1, 2))
    assert plain.network.activations == ("sigmoid",)
    assert calibrated.network.activations == ("softmax",)
    # Of sigmoid outputs that are 1 in float32, the first one wins; a softmax tells them apart.
    assert calibrated.metrics["accuracy"] >= plain.metrics["accuracy"]
    error = calibrated.metrics["calibration_error"]
    assert error < 0.5 * plain.metrics["calibration_error"]


def test_an_imported_version_cannot_be_trained_again(
    foreign: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    assert foreign.run() == 0
    where = ["--store", str(foreign.folder / "models"), "--model", "trees"]
    assert cli.main(["reproduce", "1", *where]) == cli.WRONG_USAGE
    assert "was imported from a file" in capsys.readouterr().err


def test_a_network_that_fails_is_rejected_unless_it_is_forced(foreign: Import) -> None:
    assert foreign.run("--min-accuracy", "1") == cli.REJECTED
    assert foreign.store.aliases() == {}
    assert foreign.run("--min-accuracy", "1", "--force") == cli.WRONG_USAGE
    assert foreign.run("--min-accuracy", "1", "--force", "--reason", "a test") == 0
    assert foreign.store.manifest(2).gate.verdict == "FORCED"


def test_the_second_is_compared_with_the_champion(foreign: Import) -> None:
    assert foreign.run() == 0
    assert foreign.run("--class-names", "ash,birch,oak", "--json") == cli.FAILED
    assert foreign.run("--json") == 0
    assert any("not worse than champion 1" in r for r in foreign.store.manifest(2).gate.reasons)


def test_logits_cannot_be_judged(foreign: Import, capsys: pytest.CaptureFixture[str]) -> None:
    assert foreign.run("--activations", "identity") == cli.FAILED
    assert "--output-activation softmax" in capsys.readouterr().err
    assert foreign.run("--activations", "identity", "--output-activation", "softmax") == 0


def test_the_command_of_the_store_hands_over(foreign: Import) -> None:
    words = [sys.executable, "-P", "-m", "mlpserve_model", "import", str(foreign.network())]
    words += ["--store", str(foreign.folder / "models"), "--model", "trees", "--json"]
    words += ["--holdout", str(foreign.holdout()), "--activations", "softmax"]
    words += ["--class-names", ",".join(NAMES)]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["verdict"] == "PROMOTED"


SIGNATURES = {
    "real": Signature((4,), 1.0, NAMES, "real"),
    "pixels": Signature((2, 2), 16.0, NAMES),
}


@pytest.mark.parametrize(
    ("kind", "x", "words"),
    [
        ("real", np.zeros((3, 5)), "expected rows of shape (4,)"),
        ("real", np.full((3, 4), np.nan), "finite"),
        ("pixels", np.full((3, 4), 0.5) * 3, "expected"),
        ("pixels", np.full((3, 2, 2), 17, np.uint8), "expected at most 16"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    kind: str, x: NDArray[np.float64], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", X=x, y=np.array(NAMES))
    with pytest.raises(DataError) as caught:
        read_holdout(tmp_path / "data.npz", SIGNATURES[kind])
    assert words in str(caught.value)


def test_pixels_of_another_maximum_are_refused(tmp_path: Path) -> None:
    x, path = np.full((3, 2, 2), 8, np.uint8), tmp_path / "data.npz"
    np.savez(path, X=x, y=np.array(NAMES), maximum=8)
    with pytest.raises(DataError, match="its maximum is 8, and the network takes"):
        read_holdout(path, SIGNATURES["pixels"])
    np.savez(path, X=x, y=np.array(NAMES), maximum=16)
    assert read_holdout(path, SIGNATURES["pixels"]).input_maximum == 16


def test_labels_are_matched_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", X=np.eye(4)[:3], y=np.array(["cedar", "ash", "cedar"]))
    found = read_holdout(tmp_path / "data.npz", SIGNATURES["pixels"])
    assert found.labels.tolist() == [2, 0, 2]
    assert found.inputs.shape == (3, 2, 2)
    np.savez(tmp_path / "data.npz", X=np.eye(4)[:1], y=np.array(["oak"]))
    with pytest.raises(DataError, match="oak"):
        read_holdout(tmp_path / "data.npz", SIGNATURES["pixels"])
