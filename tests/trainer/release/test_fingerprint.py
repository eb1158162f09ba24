import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import CHAMPION, Store
from mlpserve_trainer import Outcome, TrainSettings, load_recipe, train
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.release.gate import Rules


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    write(tmp_path / "stripes.npz", stripes)
    recipe = load_recipe("quick", dataset="npz", hidden=(8,), epochs=3, batch_size=16)
    return TrainSettings(
        store=tmp_path / "store",
        recipe=recipe,
        data_dir=tmp_path / "stripes.npz",
        rules=Rules(min_accuracy=0.1),
        unless_unchanged=True,
    )


def write(path: Path, data: Dataset) -> None:
    np.savez(path, X=data.inputs, y=data.labels)


def store_of(settings: TrainSettings) -> Store:
    return Store(settings.store, settings.model)


def reject(settings: TrainSettings) -> Outcome:
    return train(replace(settings, rules=Rules(min_accuracy=1.0, margin=0)))


def test_the_first_training_takes_place(settings: TrainSettings) -> None:
    assert train(settings).verdict == "PROMOTED"


def test_the_same_data_and_recipe_are_not_trained_again(settings: TrainSettings) -> None:
    first = train(settings)
    again = train(settings)
    assert (again.version, again.verdict, again.digest) == (1, "UNCHANGED", first.digest)
    assert again.reasons == ("data and recipe are those of version 1",)
    assert store_of(settings).versions() == [1]


def test_without_the_setting_they_are(settings: TrainSettings) -> None:
    train(settings)
    assert train(replace(settings, unless_unchanged=False)).version == 2


def test_other_data_is_trained_on(settings: TrainSettings, stripes: Dataset) -> None:
    train(settings)
    assert settings.data_dir
    write(
        settings.data_dir,
        replace(stripes, inputs=stripes.inputs[::-1], labels=stripes.labels[::-1]),
    )
    assert train(settings).version == 2


def test_another_recipe_is_trained_with(settings: TrainSettings) -> None:
    train(settings)
    other = settings.recipe.override({"learning_rate": 0.01})
    assert train(replace(settings, recipe=other)).version == 2


def test_the_name_of_a_recipe_makes_no_other_training(settings: TrainSettings) -> None:
    train(settings)
    other = replace(settings.recipe, name="mine", description="the same")
    assert train(replace(settings, recipe=other)).verdict == "UNCHANGED"


def test_the_newest_version_counts_as_well_as_the_champion(settings: TrainSettings) -> None:
    train(settings)
    other = replace(settings, recipe=settings.recipe.override({"learning_rate": 1e-6}))
    assert reject(other).version == 2
    assert train(other).reasons == ("data and recipe are those of version 2",)
    assert train(settings).reasons == ("data and recipe are those of version 1",)


def test_a_rollback_is_not_undone_by_training_the_same_again(settings: TrainSettings) -> None:
    train(settings)
    other = replace(settings, recipe=settings.recipe.override({"epochs": 4}))
    assert train(other).verdict == "PROMOTED"
    store = store_of(settings)
    store.move_alias(CHAMPION, 1, expected=2, event="rollback", reason="a drill")
    assert train(other).verdict == "UNCHANGED"
    assert store.aliases() == {CHAMPION: 1}


def test_without_a_champion_it_is_trained_again(settings: TrainSettings) -> None:
    hopeless = replace(settings, recipe=settings.recipe.override({"learning_rate": 1e-6}))
    assert reject(hopeless).verdict == "REJECTED"
    assert reject(hopeless).version == 2


def test_a_damaged_champion_is_replaced(settings: TrainSettings) -> None:
    train(settings)
    (store_of(settings).path(1) / "model.npz").write_bytes(b"no weights")
    assert train(settings).verdict == "PROMOTED"
    assert store_of(settings).aliases() == {CHAMPION: 2}


def test_a_damaged_newest_version_is_passed_over(settings: TrainSettings) -> None:
    train(settings)
    train(replace(settings, unless_unchanged=False))
    store = store_of(settings)
    store.move_alias(CHAMPION, 1, expected=2, event="rollback", reason="a drill")
    (store.path(2) / "manifest.json").write_text("{}")
    assert train(settings).reasons == ("data and recipe are those of version 1",)


def test_the_command_ends_with_0_and_tells_the_version(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--dataset", "npz", "--data-dir", str(settings.data_dir)]
    arguments += ["--epochs", "20", "--batch-size", "16", "--unless-unchanged"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out == "nothing to train: data and recipe are those of version 1\n"
    assert main([*arguments, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["version"], outcome["verdict"]) == (1, "UNCHANGED")
