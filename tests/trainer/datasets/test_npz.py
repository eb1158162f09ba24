from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_trainer import DataError
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from tests.support.numbers import SIGNALLING_NAN

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 2, 4)
WORDS = np.array(["cat", "dog"] * 4)


def npz(tmp_path: Path, **arrays: Any) -> Dataset:
    np.savez(tmp_path / "data.npz", **arrays)
    return load("npz", DataLocations(tmp_path / "data.npz", tmp_path))


def test_bytes_and_words_become_inputs_and_class_names(tmp_path: Path) -> None:
    data = npz(tmp_path, X=PIXELS, y=WORDS)
    np.testing.assert_array_equal(data.inputs, PIXELS)
    assert data.class_names == ("cat", "dog")
    assert (data.input_shape, data.input_maximum) == ((2, 4), 255)


def test_a_folder_with_one_file_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", X=PIXELS, y=WORDS)
    assert load("npz", DataLocations(tmp_path, tmp_path)).class_names == ("cat", "dog")


def test_a_folder_with_two_files_is_not_guessed_at(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        np.savez(tmp_path / name, X=PIXELS, y=WORDS)
    with pytest.raises(DataError, match="found 2"):
        load("npz", DataLocations(tmp_path, tmp_path))


def test_fractions_stay_floats(tmp_path: Path) -> None:
    data = npz(tmp_path, X=PIXELS / 255, y=WORDS)
    assert data.inputs.dtype == np.float32
    np.testing.assert_allclose(data.inputs, PIXELS / 255, rtol=1e-6)


def test_false_and_true_are_dark_and_bright(tmp_path: Path) -> None:
    data = npz(tmp_path, X=PIXELS > 20, y=WORDS)
    assert data.inputs.dtype == np.float32
    np.testing.assert_array_equal(data.inputs, PIXELS > 20)


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_whole_numbers_become_bytes(tmp_path: Path, kind: type) -> None:
    data = npz(tmp_path, X=PIXELS.astype(kind), y=WORDS)
    assert data.inputs.dtype == np.uint8
    np.testing.assert_array_equal(data.inputs, PIXELS)


def test_the_file_may_say_what_its_maximum_is(tmp_path: Path) -> None:
    assert npz(tmp_path, X=PIXELS, y=WORDS, maximum=63).input_maximum == 63


@pytest.mark.parametrize("maximum", [0, 300, "16", [1, 2]])
def test_a_maximum_that_is_none_is_refused(tmp_path: Path, maximum: Any) -> None:
    with pytest.raises(DataError, match="expected maximum to be one number"):
        npz(tmp_path, X=PIXELS, y=WORDS, maximum=maximum)


def test_values_above_the_maximum_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="whole numbers in X from 0 to 16, got 0 to 63"):
        npz(tmp_path, X=PIXELS, y=WORDS, maximum=16)


@pytest.mark.parametrize("value", [np.nan, SIGNALLING_NAN, -0.5, 1.5])
def test_floats_out_of_range_are_refused(tmp_path: Path, value: Any) -> None:
    inputs = PIXELS / 255
    inputs[0, 0, 0] = value
    with pytest.raises(DataError, match="from 0 to 1 and no NaN"):
        npz(tmp_path, X=inputs, y=WORDS)


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected arrays X and y, found X, labels"):
        npz(tmp_path, X=PIXELS, labels=WORDS)


def test_a_pickled_object_is_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels as integers or numpy strings"):
        npz(tmp_path, X=PIXELS, y=np.array(["cat", 3] * 4, dtype=object))


def test_labels_of_two_dimensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected y as one column"):
        npz(tmp_path, X=PIXELS, y=np.eye(8, dtype=int))


def test_fewer_labels_than_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8 images but labels of shape"):
        npz(tmp_path, X=PIXELS, y=WORDS[1:])


def test_an_empty_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        npz(tmp_path, X=PIXELS[:0], y=WORDS[:0])


@pytest.mark.parametrize("contents", [b"", b"PK", b"no archive", b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(contents)
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load("npz", DataLocations(tmp_path / "data.npz", tmp_path))


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", X=PIXELS, y=WORDS)
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load("npz", DataLocations(tmp_path / "data.npz", tmp_path))
