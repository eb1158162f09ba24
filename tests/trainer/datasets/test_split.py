from dataclasses import replace

import numpy as np

from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.split import Examples, split, stratified


def test_a_fifth_of_every_class_is_held_out() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    _, taken = stratified(labels, 0.2, seed=1)
    assert np.bincount(labels[taken]).tolist() == [20, 10, 2]


def test_every_row_is_on_one_side() -> None:
    labels = np.tile([0, 1, 2], 50)
    stay, taken = stratified(labels, 0.3, seed=1)
    assert sorted([*stay, *taken]) == list(range(150))


def test_small_classes_keep_a_row_on_each_side() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    stay, taken = stratified(labels, 0.01, seed=1)
    assert sorted(labels[taken]) == [0, 1]
    assert sorted(labels[stay]) == [0, 1, 2]


def test_another_seed_takes_other_rows() -> None:
    labels = np.tile([0, 1], 50)
    assert set(stratified(labels, 0.2, seed=1)[1]) != set(stratified(labels, 0.2, seed=2)[1])


def test_the_holdout_is_the_same_every_time(stripes: Dataset) -> None:
    one, two = split(stripes, 0.1), split(stripes, 0.3)
    np.testing.assert_array_equal(one.holdout.inputs, two.holdout.inputs)
    assert len(one.holdout) == 60


def test_the_parts_share_no_row(stripes: Dataset) -> None:
    numbered = replace(stripes, inputs=_numbered(300))
    parts = split(numbered, 0.1)
    rows = [part.inputs for part in (parts.training, parts.validation, parts.holdout)]
    assert len(np.unique(np.concatenate(rows), axis=0)) == 300


def test_an_official_line_is_kept(stripes: Dataset) -> None:
    parts = split(replace(stripes, training_rows=250), 0.1)
    np.testing.assert_array_equal(parts.holdout.inputs, stripes.inputs[250:])
    assert parts.description == "official"


def test_the_validation_part_comes_out_of_the_training_rows(stripes: Dataset) -> None:
    parts = split(replace(stripes, training_rows=250), 0.2)
    assert len(parts.training) + len(parts.validation) == 250
    assert abs(len(parts.validation) - 50) <= 2


def test_bytes_are_scaled_by_their_maximum() -> None:
    inputs = np.array([[[0, 8], [16, 4]]], dtype=np.uint8)
    scaled = Examples(inputs, np.array([0]), 16).scaled()
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0, 0.5, 1, 0.25]])


def test_floats_are_taken_as_they_are() -> None:
    inputs = np.array([[[0, 0.5], [1, 0.25]]], dtype=np.float32)
    np.testing.assert_array_equal(Examples(inputs, np.array([0]), 1).scaled(), [[0, 0.5, 1, 0.25]])


def _numbered(rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    number = np.arange(rows)
    return np.stack([number // 256, number % 256], axis=1).astype(np.uint8)
