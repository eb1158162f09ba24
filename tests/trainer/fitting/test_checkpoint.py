import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer import TrainerError, TrainSettings, load_recipe, train
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.errors import CheckpointDamaged
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.fitting.fit import Epoch
from mlpserve_trainer.fitting.progress import log_epochs
from tests.support.logs import fields_of

PROGRAM = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    np.savez(tmp_path / "stripes.npz", X=stripes.inputs, y=stripes.labels)
    knobs = {"hidden": (8,), "epochs": 5, "batch_size": 16, "averaging": 0.9, "patience": 9}
    return TrainSettings(
        store=tmp_path / "store",
        recipe=load_recipe("quick", dataset="npz", **knobs),
        data_dir=tmp_path / "stripes.npz",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def stop_after(count: int, settings: TrainSettings) -> None:
    """Leave the training after so many epochs, as Ctrl-C does."""

    def watch(epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
        for epoch in epochs:
            yield epoch
            if epoch.number == count:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=f"--resume continues after epoch {count}"):
        train(settings, watch)


def files(settings: TrainSettings) -> list[Path]:
    assert settings.checkpoint_dir
    return sorted(settings.checkpoint_dir.iterdir())


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_resumed_training_publishes_what_an_uninterrupted_one_does(
    settings: TrainSettings, epochs: int
) -> None:
    whole = train(settings)
    stop_after(epochs, settings)
    resumed = train(replace(settings, resume=True))
    assert resumed.digest == whole.digest
    assert resumed.metrics["training_loss"] == whole.metrics["training_loss"]


def test_a_published_training_leaves_no_checkpoint(settings: TrainSettings) -> None:
    train(settings)
    assert files(settings) == []


def test_without_resume_the_training_starts_again(settings: TrainSettings) -> None:
    stop_after(2, settings)
    numbers: list[int] = []

    def watch(epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
        for epoch in epochs:
            numbers.append(epoch.number)
            yield epoch

    train(settings, watch)
    assert numbers == [1, 2, 3, 4, 5]


def test_another_training_does_not_find_the_checkpoint(settings: TrainSettings) -> None:
    stop_after(2, settings)
    other = replace(settings, seed=1, resume=True)
    assert train(other).digest == train(replace(other, resume=False)).digest
    assert len(files(settings)) == 1


def test_a_training_with_nothing_to_resume_says_that_it_starts_again(
    settings: TrainSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    train(settings)
    assert "no checkpoint of this training" not in caplog.text
    train(replace(settings, resume=True))
    assert caplog.text.count("no checkpoint of this training (other data, recipe or seed)") == 1


def test_a_second_ctrl_c_does_not_hide_how_to_resume(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Checkpoint.load

    def interrupted(self: Checkpoint) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return load(self)

    monkeypatch.setattr(Checkpoint, "load", interrupted)
    stop_after(2, settings)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Interrupting:
    """An array during whose writing Ctrl-C is typed."""

    def __array__(self, dtype: object = None, copy: bool | None = None) -> Any:
        signal.raise_signal(signal.SIGINT)
        return np.zeros(3)


def test_ctrl_c_waits_until_the_checkpoint_is_written(tmp_path: Path) -> None:
    """NumPy leaves a half-written file to the garbage collection, which complains of it."""
    others = dict.fromkeys(("optimizer_state", "average", "best", "learning_rates"))
    state: Any = SimpleNamespace(weights=Interrupting(), losses=[1.0], accuracies=[0.5], **others)
    with pytest.raises(KeyboardInterrupt):
        Checkpoint(tmp_path / "one.npz").save(state)
    with np.load(tmp_path / "one.npz") as written:
        assert sorted(written) == ["accuracies", "losses", "weights"]


def test_a_damaged_checkpoint_is_refused(settings: TrainSettings) -> None:
    stop_after(2, settings)
    (path,) = files(settings)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainerError, match="is damaged, remove it"):
        train(replace(settings, resume=True))
    assert Store(settings.store, settings.model).versions() == []


def test_a_folder_that_cannot_be_written_costs_no_training(
    settings: TrainSettings, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.checkpoint_dir
    settings.checkpoint_dir.write_text("a file")
    assert train(settings).version == 1
    assert caplog.text.count("training without checkpoints") == 1


def test_the_name_tells_trainings_apart(settings: TrainSettings, tmp_path: Path) -> None:
    train(settings)
    draft = Store(settings.store, settings.model).manifest(1)
    place = Checkpoint.of(tmp_path, draft)
    assert place == Checkpoint.of(tmp_path, draft)
    signature = replace(draft.signature, input_maximum=254)
    for other in (replace(draft, seed=1), replace(draft, signature=signature)):
        assert place != Checkpoint.of(tmp_path, other)


@pytest.mark.faults
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    arguments = ["train", "--dataset", "digits", "--epochs", "60", "--seed", "3"]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = os.environ | {"MLPSERVE_STORE": str(tmp_path / "store")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        assert any("epoch=3 " in line for line in process.stderr)
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = [*command[:3], *arguments, "--resume"]
    second = subprocess.run(resumed, env=environment, capture_output=True, text=True, check=True)
    assert "resuming from a checkpoint" in second.stderr
    subprocess.run(command, env=environment, capture_output=True, check=True)
    store = Store(tmp_path / "store", "mnist")
    assert store.manifest(1).digest == store.manifest(2).digest


def test_progress_is_timed_from_where_the_training_went_on(
    settings: TrainSettings, caplog: pytest.LogCaptureFixture
) -> None:
    stop_after(4, settings)
    caplog.set_level("INFO")
    train(replace(settings, resume=True), log_epochs)
    (epoch,) = fields_of(caplog, "epoch ended")
    assert (epoch["epoch"], epoch["epochs"]) == (5, 5)


Arrays = dict[str, Any]
NOT_OF_THIS_TRAINING: dict[str, Callable[[Arrays], Arrays]] = {
    "other shape": lambda a: a | {"weights": a["weights"][:5]},
    "other dimensions": lambda a: a | {"weights": a["weights"][None]},
    "text": lambda a: a | {"weights": np.array(["a"] * len(a["weights"]))},
    "NaN": lambda a: a | {"weights": np.full_like(a["weights"], np.nan)},
    "other optimizer": lambda a: a | {"memory": a["memory"][:1]},
    "best of other shape": lambda a: a | {"best": a["best"][:5]},
    "no average": lambda a: {key: value for key, value in a.items() if key != "average"},
    "a number for a curve": lambda a: a | {"losses": np.array(1.0)},
    "text in a curve": lambda a: a | {"losses": np.array(["x"] * len(a["losses"]))},
    "curves of different lengths": lambda a: a | {"accuracies": a["accuracies"][:1]},
    "no epochs": lambda a: a | {name: np.ones(0) for name in ("losses", "accuracies", "rates")},
    "too many epochs": lambda a: a | {n: np.ones(99) for n in ("losses", "accuracies", "rates")},
}


@pytest.mark.parametrize("change", NOT_OF_THIS_TRAINING)
def test_a_checkpoint_that_cannot_be_of_this_training_is_damaged(
    settings: TrainSettings, change: str
) -> None:
    stop_after(2, settings)
    (file,) = files(settings)
    np.savez(file, **NOT_OF_THIS_TRAINING[change](dict(np.load(file))))
    with pytest.raises(CheckpointDamaged, match="remove it"):
        train(replace(settings, resume=True))
