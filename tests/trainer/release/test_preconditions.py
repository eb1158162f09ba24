from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer import Rules, TrainSettings, UsageError, load_recipe, train
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.fitting.fit import Epoch


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    write(tmp_path, stripes, [*stripes.class_names])
    recipe = load_recipe("quick", dataset="npz", hidden=(8,), epochs=1)
    return TrainSettings(store=tmp_path / "store", recipe=recipe, data_dir=tmp_path / "stripes.npz")


def write(folder: Path, data: Dataset, names: list[str]) -> None:
    np.savez(folder / "stripes.npz", X=data.inputs, y=np.array(names)[data.labels])


def refused(settings: TrainSettings, published: Sequence[int] = ()) -> str:
    """Return the message of a training that ends before its first epoch."""

    def watch(epochs: object, total: int) -> list[Epoch]:
        raise AssertionError("the training has started")

    with pytest.raises(UsageError) as refusal:
        train(settings, watch)  # type: ignore[arg-type]
    assert Store(settings.store, settings.model).versions() == [*published]
    return str(refusal.value)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ((3_000_000, 2), "golden_rows is 32, expected at most 22 for these layers"),
        ((8_000, 9_000), "layer_sizes is (16, 8000, 9000, 3), expected at most 67108864 param"),
        ((2,) * 63, "expected 1 to 64 integers"),
        ((2**31 - 1,), "expected at most 67108864 parameters"),
    ],
    ids=["self-test", "parameters", "layers", "memory"],
)
def test_a_network_beyond_the_format_is_refused_before_the_training(
    settings: TrainSettings, hidden: tuple[int, ...], message: str
) -> None:
    assert message in refused(replace(settings, recipe=replace(settings.recipe, hidden=hidden)))


@pytest.mark.parametrize("length", [345_000, 400_000])
def test_class_names_beyond_the_manifest_are_refused_before_the_training(
    settings: TrainSettings, stripes: Dataset, tmp_path: Path, length: int
) -> None:
    few = replace(stripes, inputs=stripes.inputs[:30], labels=stripes.labels[:30])
    write(tmp_path, few, [letter * length for letter in "abc"])
    assert "expected at most 10" in refused(settings)


def test_a_network_just_within_the_format_is_trained(settings: TrainSettings) -> None:
    recipe = replace(settings.recipe, hidden=(2,) * 62)
    assert train(replace(settings, recipe=recipe)).version == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "d"], "class 2 'c' became 'd'"),
        (["a", "b", "b"], "3 classes became 2"),
    ],
)
def test_other_classes_than_the_champions_are_refused_before_the_training(
    settings: TrainSettings, stripes: Dataset, tmp_path: Path, names: list[str], message: str
) -> None:
    settings = replace(settings, rules=Rules(min_accuracy=0))
    train(settings)
    write(tmp_path, stripes, names)
    assert message in refused(settings, published=[1])


@pytest.mark.parametrize(
    "rules",
    [
        Rules(min_accuracy=0, allow_signature_change=True),
        Rules(min_accuracy=0, force_reason="a drill"),
    ],
)
def test_other_classes_are_trained_on_if_that_is_wanted(
    settings: TrainSettings, stripes: Dataset, tmp_path: Path, rules: Rules
) -> None:
    train(replace(settings, rules=Rules(min_accuracy=0)))
    write(tmp_path, stripes, ["a", "b", "d"])
    assert train(replace(settings, rules=rules)).version == 2


def test_a_damaged_champion_of_other_classes_stops_no_training(
    settings: TrainSettings, stripes: Dataset, tmp_path: Path
) -> None:
    settings = replace(settings, rules=Rules(min_accuracy=0))
    train(settings)
    (Store(settings.store, settings.model).path(1) / "model.npz").write_bytes(b"damaged")
    write(tmp_path, stripes, ["a", "b", "d"])
    assert train(settings).verdict == "PROMOTED"


def test_a_sweep_that_publishes_is_refused_before_its_first_training(
    settings: TrainSettings, stripes: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(settings, rules=Rules(min_accuracy=0)))
    write(tmp_path, stripes, ["a", "b", "d"])
    sweep = tmp_path / "sweep.toml"
    sweep.write_text("[grid]\nhidden = [[8]]\nepochs = [1]\ndataset = ['npz']\n")
    place = ["--store", str(settings.store), "--data-dir", str(settings.data_dir)]
    assert main(["sweep", str(sweep), "--publish", *place]) == 2
    assert "class 2 'c' became 'd'" in capsys.readouterr().err
    assert not sweep.with_suffix(".jsonl").exists()
