import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlpserve_trainer import DataError, UsageError
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.dataset import encode_labels


def test_the_digits_are_all_there_as_bytes_up_to_16(tmp_path: Path) -> None:
    data = load("digits", DataLocations(None, tmp_path))
    assert data.inputs.shape == (1797, 8, 8)
    assert data.inputs.dtype == np.uint8
    assert (data.input_maximum, data.inputs.max()) == (16, 16)
    assert data.class_names == tuple("0123456789")


def test_the_digits_are_those_of_scikit_learn_without_its_import(tmp_path: Path) -> None:
    # As a training without a network, whose data set is the default.
    program = f"""
import sys
from pathlib import Path
from mlpserve_trainer.datasets import DataLocations, load, openml
openml.ADDRESS = "http://127.0.0.1:9"
data = load("auto", DataLocations(None, Path({str(tmp_path)!r})))
sys.exit(data.name != "digits" or "sklearn" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    data = load("digits", DataLocations(None, tmp_path))
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(data.inputs.reshape(-1, 64), pixels)
    np.testing.assert_array_equal(data.labels, labels)
    assert data.labels.dtype == np.int64


def test_a_misspelt_data_set_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean digits"):
        load("digit", DataLocations(None, tmp_path))


@pytest.mark.parametrize("name", ["idx", "npz"])
def test_data_sets_of_ones_own_need_a_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --data-dir"):
        load(name, DataLocations(None, tmp_path))


@pytest.mark.parametrize("name", ["idx", "npz"])
def test_a_place_that_does_not_exist_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        load(name, DataLocations(tmp_path / "nowhere", tmp_path))


def test_an_empty_data_set_is_refused(stripes: Dataset) -> None:
    with pytest.raises(DataError, match="is empty"):
        replace(stripes, inputs=stripes.inputs[:0], labels=stripes.labels[:0])


def test_more_labels_than_images_are_refused(stripes: Dataset) -> None:
    with pytest.raises(DataError, match="299 images but labels of shape"):
        replace(stripes, inputs=stripes.inputs[1:])


def test_a_single_class_is_refused(stripes: Dataset) -> None:
    with pytest.raises(DataError, match="one class only, 'b'"):
        replace(stripes, labels=np.ones(300, dtype=np.int64))


def test_a_single_class_in_the_training_rows_is_refused(stripes: Dataset) -> None:
    with pytest.raises(DataError, match="one class only"):
        replace(stripes, labels=np.sort(stripes.labels), training_rows=10)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(stripes: Dataset, label: int) -> None:
    labels = stripes.labels.copy()
    labels[7] = label
    with pytest.raises(DataError, match="labels out of range: expected 0 to 2"):
        replace(stripes, labels=labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_floats_that_are_not_from_0_to_1_are_refused(stripes: Dataset, value: float) -> None:
    inputs = (stripes.inputs / 255).astype(np.float32)
    inputs[3, 2, 1] = value
    with pytest.raises(DataError, match="from 0 to 1 and no NaN"):
        replace(stripes, inputs=inputs)


def test_pixels_above_the_maximum_are_refused(stripes: Dataset) -> None:
    with pytest.raises(DataError, match="from 0 to 16"):
        replace(stripes, input_maximum=16)


@pytest.mark.parametrize("names", [("a", "b", "a"), ("a", "b", "")])
def test_class_names_that_cannot_be_told_apart_are_refused(
    stripes: Dataset, names: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match="expected class names that differ"):
        replace(stripes, class_names=names)


def test_a_training_part_that_takes_all_rows_is_refused(stripes: Dataset) -> None:
    with pytest.raises(DataError, match="both parts need at least one"):
        replace(stripes, training_rows=300)


def test_the_digest_is_that_of_the_contents(stripes: Dataset) -> None:
    copy = replace(stripes, inputs=stripes.inputs.copy(), name="other", source="elsewhere")
    assert copy.digest() == stripes.digest()


def test_the_digest_changes_with_every_part_of_the_contents(stripes: Dataset) -> None:
    inputs, labels = stripes.inputs.copy(), stripes.labels.copy()
    inputs[0, 0, 0] ^= 1
    labels[0] = (labels[0] + 1) % 3
    variants = [
        stripes,
        replace(stripes, inputs=inputs),
        replace(stripes, inputs=stripes.inputs.reshape(300, 2, 8)),
        replace(stripes, labels=labels),
        replace(stripes, class_names=("a", "b", "z")),
        replace(stripes, class_names=("a\nb", "c", "d")),
        replace(stripes, class_names=("a", "b\nc", "d")),
    ]
    assert len({variant.digest() for variant in variants}) == len(variants)


def test_string_labels_become_class_names_and_indices() -> None:
    indices, names = encode_labels(np.array(["dog", "cat", "eel", "cat"]))
    assert names == ("cat", "dog", "eel")
    assert indices.tolist() == [1, 0, 2, 0]


def test_number_labels_are_sorted_as_numbers() -> None:
    indices, names = encode_labels(np.array([10, 9, 2, 10]))
    assert names == ("2", "9", "10")
    assert indices.tolist() == [2, 1, 0, 2]
