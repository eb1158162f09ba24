"""Tables of real numbers: standardised by the training rows, and folded into the first layer."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris

from mlpserve_model import InputValues, Network, Store, forward, initialise
from mlpserve_trainer import DataError, Recipe, TrainSettings, load_recipe, train
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.scaling import standardising
from mlpserve_trainer.datasets.split import split
from tests.support.numbers import SIGNALLING_NAN

RNG = np.random.default_rng(0)
TABLE = RNG.normal((0, 50, -3), (1, 20, 0.1), (40, 3))
LABELS = np.array(["cat", "dog"] * 20)


def csv(tmp_path: Path, text: str) -> Dataset:
    (tmp_path / "pets.csv").write_text(text)
    return load("csv", DataLocations(tmp_path / "pets.csv", tmp_path))


def npz(tmp_path: Path, x: Any, **more: Any) -> Dataset:
    np.savez(tmp_path / "pets.npz", X=x, y=LABELS[: len(x)], **more)
    return load("npz", DataLocations(tmp_path / "pets.npz", tmp_path))


def lines(rows: Any, header: str = "") -> str:
    body = (f"{','.join(map(repr, map(float, row)))},{LABELS[i]}\n" for i, row in enumerate(rows))
    return header + "".join(body)


@pytest.mark.parametrize("value", [1.5, -1, 300, 1e9])
@pytest.mark.parametrize("header", ["", "width,height,kind\n"])
def test_a_csv_file_beyond_0_to_1_and_beyond_pixels_is_a_table_of_real_numbers(
    value: float, header: str, tmp_path: Path
) -> None:
    data = csv(tmp_path, f"{header}0,{value},cat\n1,1,dog\n")
    assert data.input_kind == "real"
    assert data.inputs.dtype == np.float32
    assert data.columns == (("width", "height") if header else ("1", "2"))
    np.testing.assert_array_equal(data.inputs, np.array([[0, value], [1, 1]], np.float32))


@pytest.mark.parametrize("text", ["0.5,0,cat\n1,1,dog\n", "0,255,cat\n1,1,dog\n"])
def test_values_that_may_be_pixels_stay_pixels(text: str, tmp_path: Path) -> None:
    assert csv(tmp_path, text).input_kind == "pixels"


@pytest.mark.parametrize(
    "x", [TABLE, TABLE * 1e4, (TABLE * 100).astype(np.int64), TABLE.T.copy().T]
)
def test_a_table_in_an_npz_file_is_one_of_real_numbers(x: Any, tmp_path: Path) -> None:
    data = npz(tmp_path, x)
    assert (data.input_kind, data.input_maximum) == ("real", 1)
    np.testing.assert_allclose(data.inputs, x, rtol=1e-6)
    assert data.values() == InputValues("real", data.inputs.min(), data.inputs.max())


def test_a_file_that_says_its_maximum_means_pixels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="whole numbers in X from 0 to 16"):
        npz(tmp_path, (TABLE * 100).astype(int), maximum=16)
    with pytest.raises(DataError, match="from 0 to 1 and no NaN"):
        npz(tmp_path, TABLE, maximum=16)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "column 'height' has no value in line 3: leave the line out, or fill it in"),
        ("NA", "column 'height' has no value in line 3"),
        ("?", "column 'height' has no value in line 3"),
        ("tall", "column 'height' has 'tall' in line 3, expected a number in every column"),
        ("nan", "column 'height' has nan in row 1, expected finite numbers"),
        ("inf", "column 'height' has inf in row 1, expected finite numbers"),
        ("1e39", "column 'height' has inf in row 1, expected finite numbers"),
    ],
)
def test_what_is_no_number_is_named_by_column(cell: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        csv(tmp_path, f"width,height,kind\n7.5,9,cat\n1,{cell},dog\n")
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, SIGNALLING_NAN, np.inf])
def test_a_column_of_an_npz_file_is_named_as_numpy_counts_it(value: Any, tmp_path: Path) -> None:
    x = TABLE.copy()
    x[7, 2] = value
    with pytest.raises(DataError, match=rf"column X\[:, 2\] has {value} in row 7"):
        npz(tmp_path, x)


def test_a_constant_column_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    x = TABLE.copy()
    x[:, 1] = 7
    data = csv(tmp_path, lines(x, "width,height,depth,kind\n"))
    with pytest.raises(DataError, match=r"column 'height' is 7 in every training row, .* leave it"):
        split(data, 0.1)


@pytest.mark.parametrize(("size", "fits"), [(1e3, True), (1e6, False), (1e30, False)])
def test_a_column_that_float32_cannot_hold_is_named(size: float, fits: bool) -> None:
    rows = np.array([[0, size], [1, size * (1 + 1e-7)], [2, size + 1]])
    if fits:
        assert standardising("pets", rows, ()).apply(rows)[:, 1].std() == pytest.approx(1, rel=1e-3)
    else:
        with pytest.raises(
            DataError, match=r"column X\[:, 1\] reaches from .* subtract a constant"
        ):
            standardising("pets", rows, ())


def test_the_training_rows_alone_say_how_a_table_is_standardised(tmp_path: Path) -> None:
    parts = split(npz(tmp_path, TABLE), 0.1)
    assert parts.scaling is not None
    scaled = parts.scaling.apply(parts.training.inputs)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-5)
    assert np.abs(parts.scaling.apply(parts.holdout.inputs).mean(axis=0)).max() > 1e-3


def test_folded_weights_answer_to_rows_as_they_are() -> None:
    network = Network((3, 8, 2), ("silu", "softmax"))
    weights = initialise(network, np.random.default_rng(1))
    scaling = standardising("pets", TABLE, ())
    rows = TABLE.astype(np.float32)
    expected = forward(network, weights, scaling.apply(rows))
    folded = scaling.fold(weights)
    assert {a.dtype for layer in folded for a in layer} == {np.dtype(np.float32)}
    np.testing.assert_allclose(forward(network, folded, rows), expected, atol=1e-5)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = load_iris()
    names = [name.removesuffix(" (cm)") for name in data.feature_names]
    rows = (
        f"{','.join(map(str, x))},{data.target_names[y]}"
        for x, y in zip(data.data, data.target, strict=True)
    )
    path = tmp_path_factory.mktemp("iris") / "iris.csv"
    path.write_text("\n".join([",".join([*names, "species"]), *rows, ""]))
    return path


def settings(iris: Path, tmp_path: Path, recipe: Recipe, seed: int = 0) -> TrainSettings:
    return TrainSettings(
        store=tmp_path / "models", model="iris", recipe=recipe, data_dir=iris, seed=seed
    )


def test_a_table_is_published_for_callers_to_send_it_as_it_is(iris: Path, tmp_path: Path) -> None:
    outcome = train(settings(iris, tmp_path, load_recipe("quick")))
    assert outcome.verdict == "PROMOTED"
    model = Store(tmp_path / "models", "iris").load(1)
    manifest = model.manifest
    assert (manifest.signature.input_kind, manifest.signature.input_shape) == ("real", (4,))
    values = manifest.input_values
    assert values is not None
    assert (values.kind, round(values.low, 6), round(values.high, 6)) == ("real", 0.1, 7.9)
    x, y = load_iris(return_X_y=True)
    assert_allclose(values.means, x.mean(axis=0), rtol=0.05)
    assert (model.predict(x.astype(np.float32)).argmax(axis=1) == y).mean() >= 0.95
    for document in ("report.html", "model_card.md"):
        text = (tmp_path / "models/iris/1" / document).read_text()
        assert "real numbers" in text or "any finite float32" in text


@pytest.mark.parametrize("seed", range(10))
def test_the_default_recipe_learns_small_tables(seed: int, iris: Path, tmp_path: Path) -> None:
    outcome = train(settings(iris, tmp_path, load_recipe("quick"), seed))
    assert outcome.metrics["accuracy"] >= 0.95


def dropped(tmp_path: Path, x: Any) -> Path:
    (tmp_path / "drop").mkdir()
    path = tmp_path / "drop" / "more.npz"
    np.savez(path, X=x, y=LABELS[: len(x)])
    two_minutes_ago = path.stat().st_mtime - 120
    os.utime(path, (two_minutes_ago, two_minutes_ago))
    return path


@pytest.mark.parametrize("x", [TABLE[:4] * 3, np.zeros((4, 3), np.uint8), np.full((4, 3), 0.5)])
def test_rows_dropped_beside_a_table_are_in_its_units(x: Any, tmp_path: Path) -> None:
    (tmp_path / "pets.csv").write_text(lines(TABLE))
    dropped(tmp_path, x)
    name = f"csv:{tmp_path / 'pets.csv'}+npz:{tmp_path / 'drop'}"
    data = load(name, DataLocations(None, tmp_path))
    assert (data.input_kind, data.added) == ("real", 4)
    np.testing.assert_allclose(data.inputs[-4:], x, rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "x", "reason"),
    [
        (TABLE, np.full((4, 3), np.nan), "expected finite numbers in X"),
        (TABLE - TABLE.min() + 1, np.full((4, 2), 0.5), r"expected rows of shape \(3,\)"),
        (
            np.eye(40, 3),
            TABLE[:4],
            "expected X as csv has it, whole numbers from 0 to 255 or from 0 to 1",
        ),
    ],
)
def test_rows_that_do_not_fit_a_table_are_moved_aside_with_the_reason(
    first: Any, x: Any, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "pets.csv").write_text(lines(first))
    path = dropped(tmp_path, x)
    name = f"csv:{tmp_path / 'pets.csv'}+npz:{tmp_path / 'drop'}"
    assert load(name, DataLocations(None, tmp_path)).added == 0
    note = path.parent / ".rejected" / "more.npz.reason.txt"
    assert re.search(reason, note.read_text())


def test_a_table_and_pixels_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "pets.csv").write_text(lines(TABLE))
    (tmp_path / "small.csv").write_text(lines(np.eye(40, 3)))
    name = f"csv:{tmp_path / 'pets.csv'}+csv:{tmp_path / 'small.csv'}"
    with pytest.raises(DataError, match=r"expected rows \(3,\) of real numbers"):
        load(name, DataLocations(None, tmp_path))
