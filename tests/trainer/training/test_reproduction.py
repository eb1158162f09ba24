from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Store, VersionNotFound
from mlpserve_trainer import DataError, TrainSettings, load_recipe, train
from mlpserve_trainer.datasets import DataLocations, Dataset
from mlpserve_trainer.training.reproduction import Reproduction, reproduce


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    np.savez(tmp_path / "stripes.npz", X=stripes.inputs, y=stripes.labels)
    recipe = load_recipe("quick", dataset="npz", hidden=(8,), epochs=3, batch_size=16)
    data = tmp_path / "stripes.npz"
    return TrainSettings(store=tmp_path / "store", recipe=recipe, seed=5, data_dir=data)


def again(settings: TrainSettings, version: int = 1) -> Reproduction:
    store = Store(settings.store, settings.model)
    return reproduce(store, version, DataLocations(settings.data_dir, settings.cache_dir))


def test_the_manifest_is_enough_to_train_the_same_weights(settings: TrainSettings) -> None:
    digest = train(settings).digest
    result = again(settings)
    assert result.identical
    assert (result.digest, result.largest_difference, result.versions) == (digest, 0, ())


def test_what_comes_out_otherwise_is_measured(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings)
    monkeypatch.setattr("mlpserve_trainer.fitting.optimizers.BETA1", 0.8999)
    monkeypatch.setattr("mlpserve_trainer.training.plan.version_of", lambda name: "0")
    result = again(settings)
    assert not result.identical
    assert 0 < result.largest_difference < 0.1
    assert all(change.endswith("now 0") for change in result.versions)


def test_other_data_is_refused(settings: TrainSettings, stripes: Dataset) -> None:
    train(settings)
    assert settings.data_dir
    np.savez(settings.data_dir, X=stripes.inputs[1:], y=stripes.labels[1:])
    with pytest.raises(DataError, match="not the one that version 1 was trained on"):
        again(settings)


def test_another_maximum_is_refused(settings: TrainSettings, stripes: Dataset) -> None:
    train(settings)
    assert settings.data_dir
    np.savez(settings.data_dir, X=stripes.inputs, y=stripes.labels, maximum=254)
    with pytest.raises(DataError, match="has the maximum 254, and version 1 was trained on"):
        again(settings)


def test_a_version_that_is_not_there_is_named(settings: TrainSettings) -> None:
    train(replace(settings, recipe=settings.recipe.override({"epochs": 1})))
    with pytest.raises(VersionNotFound):
        again(settings, 2)
