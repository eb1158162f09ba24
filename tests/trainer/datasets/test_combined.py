import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer import DataError, TrainSettings, UsageError, load_recipe, train
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.idx import write_idx
from mlpserve_trainer.datasets.split import split
from mlpserve_trainer.release.gate import Rules
from mlpserve_trainer.training.reproduction import reproduce
from tests.support.logs import fields_of


@pytest.fixture
def places(tmp_path: Path, stripes: Dataset) -> DataLocations:
    """The stripes as an .npz to begin with, and an empty drop folder."""
    np.savez(tmp_path / "stripes.npz", X=stripes.inputs, y=np.array(list("abc"))[stripes.labels])
    (tmp_path / "drop").mkdir()
    return DataLocations(tmp_path / "stripes.npz", tmp_path / "cache")


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"npz+npz:{tmp_path / 'drop'}"


def put(tmp_path: Path, file: str, inputs: Any, labels: Any) -> Path:
    path = tmp_path / "drop" / file
    np.savez(path, X=inputs, y=labels)
    at = time.time() - 3600
    os.utime(path, (at, at))
    return path


def bright(rows: int, start: int = 0) -> Any:
    """Rows that differ from each other and from the stripes."""
    inputs = np.full((rows, 4, 4), 255, np.uint8)
    inputs[:, 0, 0] = np.arange(start, start + rows)
    return inputs


def test_rows_of_a_drop_folder_are_added_to_the_training_rows_alone(
    tmp_path: Path, places: DataLocations, name: str, stripes: Dataset
) -> None:
    put(tmp_path, "new.npz", bright(10), ["c"] * 10)
    data = load(name, places)
    assert (len(data.labels), data.added) == (310, 10)
    parts, alone = split(data, 0.1), split(load("npz", places), 0.1)
    np.testing.assert_array_equal(parts.holdout.inputs, alone.holdout.inputs)
    np.testing.assert_array_equal(parts.holdout.labels, alone.holdout.labels)
    assert len(parts.training) + len(parts.validation) == 240 + 10
    assert parts.description == "stratified 80/20, seed 20, 10 rows added to training"


def test_an_official_test_part_stays_what_it_is(tmp_path: Path, stripes: Dataset) -> None:
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, rows in (("train", slice(200)), ("t10k", slice(200, None))):
        write_idx(folder / f"{part}-images", stripes.inputs[rows])  # type: ignore[arg-type]
        write_idx(folder / f"{part}-labels", stripes.labels[rows].astype(np.uint8))
    (tmp_path / "drop").mkdir()
    put(tmp_path, "new.npz", bright(10), [2] * 10)
    data = load(f"idx:{folder}+npz:{tmp_path / 'drop'}", DataLocations(None, tmp_path))
    parts = split(data, 0.1)
    np.testing.assert_array_equal(parts.holdout.inputs, stripes.inputs[200:])
    assert len(parts.training) + len(parts.validation) == 200 + 10
    assert parts.description == "official, 10 rows added to training"


def test_rows_that_are_test_rows_are_not_trained_on(
    tmp_path: Path, places: DataLocations, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = split(load("npz", places), 0.1).holdout
    inputs = np.concatenate([bright(5), held.inputs[:7]])
    put(tmp_path, "leak.npz", inputs, ["a"] * 12)
    parts = split(load(name, places), 0.1)
    trained_on = {row.tobytes() for p in (parts.training, parts.validation) for row in p.inputs}
    assert not trained_on & {row.tobytes() for row in parts.holdout.inputs}
    assert len(parts.training) + len(parts.validation) == 240 + 5
    (left_out,) = fields_of(caplog, "added rows left out, since they are test rows")
    assert left_out == {"rows": 7}


def test_an_empty_drop_folder_changes_no_digest(places: DataLocations, name: str) -> None:
    joined, alone = load(name, places), load("npz", places)
    assert joined.digest() == alone.digest()
    assert split(joined, 0.1).description == split(alone, 0.1).description


def test_the_digest_changes_with_each_file_that_is_added(
    tmp_path: Path, places: DataLocations, name: str
) -> None:
    digests = [load(name, places).digest()]
    for number in range(3):
        put(tmp_path, f"{number}.npz", bright(5, start=number), ["a"] * 5)
        digests.append(load(name, places).digest())
    assert len(set(digests)) == 4


def test_three_sources_of_different_kinds_are_one(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    digit = np.full((1, 8, 8), 16, np.uint8)
    put(tmp_path, "one.npz", digit, [3])
    np.savez(tmp_path / "file.npz", X=digit, y=["4"], maximum=16)
    text = f"digits+npz:{tmp_path / 'drop'}+npz:{tmp_path / 'file.npz'}+digits"
    data = load(text, DataLocations(None, tmp_path))
    assert data.name == text
    assert data.labels[1797:1799].tolist() == [3, 4]
    assert data.added == 2 + 1797
    assert [origin.rows for origin in data.origins] == [1797, 1, 1, 1797]


def test_a_source_may_have_its_place_in_its_name(places: DataLocations, tmp_path: Path) -> None:
    data = load(f"npz:{tmp_path / 'stripes.npz'}", DataLocations(None, tmp_path))
    assert data.digest() == load("npz", places).digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digits+dgits", "unknown data set 'dgits': did you mean digits"),
        ("digits+", "expected sources as NAME or NAME:PLACE"),
        ("+digits", "expected sources as NAME or NAME:PLACE"),
        ("npz:", "expected sources as NAME or NAME:PLACE"),
        ("digits:/data", "the digits come with scikit-learn"),
        ("digits+npz", "needs its place: npz:FOLDER or npz:FILE"),
    ],
)
def test_a_name_that_makes_no_sense_is_wrong_usage(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        load(text, DataLocations(None, tmp_path))


def test_the_command_says_so_before_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--every", "1h", "--dataset", "mnits+npz:/x"]) == 2
    assert "unknown data set 'mnits': did you mean mnist" in capsys.readouterr().err


def test_a_data_set_of_another_shape_cannot_be_added(places: DataLocations) -> None:
    with pytest.raises(DataError, match=r"digits: expected rows \(4, 4\) of uint8 up to 255"):
        load("npz+digits", places)


def test_a_single_file_that_does_not_fit_is_an_error_and_stays(
    tmp_path: Path, places: DataLocations
) -> None:
    path = put(tmp_path, "bad.npz", bright(2), ["x", "y"])
    with pytest.raises(DataError, match="unknown labels 'x', 'y'"):
        load(f"npz+npz:{path}", places)
    assert path.exists()


def test_a_drop_folder_that_is_not_there_is_an_error(places: DataLocations, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*gone"):
        load(f"npz+npz:{tmp_path / 'gone'}", places)


@pytest.fixture
def settings(tmp_path: Path, places: DataLocations, name: str) -> TrainSettings:
    recipe = load_recipe("quick", dataset=name, hidden=(8,), epochs=3, batch_size=16)
    return TrainSettings(
        store=tmp_path / "store",
        recipe=recipe,
        data_dir=places.data_dir,
        rules=Rules(min_accuracy=0.1),
        unless_unchanged=True,
    )


def test_a_new_file_is_trained_on_and_stands_in_the_manifest(
    tmp_path: Path, settings: TrainSettings
) -> None:
    put(tmp_path, "one.npz", bright(5), ["a"] * 5)
    assert train(settings).version == 1
    assert train(settings).verdict == "UNCHANGED"
    put(tmp_path, "two.npz", bright(5, start=9), ["b"] * 5)
    put(tmp_path, "bad.npz", bright(5), ["x"] * 5)
    assert train(settings).version == 2
    manifest = Store(settings.store, settings.model).manifest(2)
    first, dropped = manifest.extra["sources"]
    assert manifest.dataset.name == f"{first['name']}+{dropped['name']}"
    assert (first["rows"], dropped["rows"]) == (300, 10)
    assert sorted(file["name"] for file in dropped["files"]) == ["one.npz", "two.npz"]
    assert all(len(file["sha256"]) == 64 for file in dropped["files"])
    assert first["digest"].startswith("sha256:")
    assert train(settings).verdict == "UNCHANGED"


def test_versions_before_and_after_are_judged_on_the_same_rows(
    tmp_path: Path, settings: TrainSettings
) -> None:
    train(settings)
    put(tmp_path, "one.npz", bright(5), ["a"] * 5)
    reasons = train(settings).reasons
    assert any("champion 1" in reason and "McNemar" in reason for reason in reasons)
    store = Store(settings.store, settings.model)
    golden = [np.load(store.path(version) / "golden.npz")["inputs"] for version in (1, 2)]
    np.testing.assert_array_equal(*golden)


def test_a_version_can_be_reproduced_when_the_folder_has_grown(
    tmp_path: Path, settings: TrainSettings, places: DataLocations
) -> None:
    train(settings)
    put(tmp_path, "one.npz", bright(5), ["a"] * 5)
    train(settings)
    put(tmp_path, "two.npz", bright(5, start=9), ["b"] * 5)
    train(replace(settings, unless_unchanged=False))
    store = Store(settings.store, settings.model)
    assert all(reproduce(store, version, places).identical for version in (1, 2, 3))


def test_a_version_whose_file_is_gone_is_not_reproduced(
    tmp_path: Path, settings: TrainSettings, places: DataLocations
) -> None:
    path = put(tmp_path, "one.npz", bright(5), ["a"] * 5)
    train(settings)
    path.unlink()
    with pytest.raises(DataError, match="is not the one that version 1 was trained on"):
        reproduce(Store(settings.store, settings.model), 1, places)
