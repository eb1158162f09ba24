from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from mlpserve_trainer import Recipe
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.fitting.augmentation import GROUP, Shift, Warp, augmentation_for
from mlpserve_trainer.fitting.batch_loader import batch_loader

Floats = npt.NDArray[np.float32]
SIDE = 28


def images_of_squares(count: int) -> Examples:
    """Bright squares of 9×9 pixels around row 14, column 14."""
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    images[:, 10:19, 10:19] = 255
    return Examples(images, np.zeros(count, np.int64), 255)


def warped(examples: Examples, seed: int = 1, **knobs: Any) -> Floats:
    count = len(examples)
    out = np.full((count, SIDE * SIDE), np.nan, np.float32)
    warp = Warp(Recipe(**knobs), examples, count + 5)
    warp(out, np.arange(count), np.random.default_rng(seed))
    return out.reshape(count, SIDE, SIDE)


def centres(images: Floats) -> Floats:
    places = np.arange(SIDE, dtype=np.float32)
    mass = images.sum(axis=(1, 2))
    rows = images.sum(axis=2) @ places / mass
    columns = images.sum(axis=1) @ places / mass
    return np.stack([rows, columns], axis=1)


def test_no_displacement_gives_the_images_scaled() -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, SIDE, SIDE), dtype=np.uint8)
    examples = Examples(images, np.zeros(40, np.int64), 255)
    np.testing.assert_allclose(warped(examples), images / 255, atol=1e-5)


def test_float_images_keep_their_scale() -> None:
    images = np.random.default_rng(1).random((5, SIDE, SIDE), dtype=np.float32)
    examples = Examples(images, np.zeros(5, np.int64), 255)
    np.testing.assert_allclose(warped(examples), images, atol=1e-5)


def test_a_shift_moves_the_centre_by_no_more_than_it_says() -> None:
    moved = centres(warped(images_of_squares(GROUP * 50), shift=2.0)) - 14
    assert 1.8 < np.abs(moved).max() <= 2.0 + 1e-4
    assert abs(moved.mean()) < 0.3


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [GROUP, 3 * GROUP + 5])
def test_shifted_images_are_interpolated(seed: int, count: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (count, 12, 9), dtype=np.uint8)
    examples = Examples(images, np.zeros(count, np.int64), 255)
    out = np.empty((count, 108), np.float32)
    rows = np.arange(count)
    shift = augmentation_for(Recipe(shift=2.5), examples, count + 3)
    assert isinstance(shift, Shift)
    shift(out, rows, np.random.default_rng(seed))
    largest = 2.5 * 9 / SIDE
    shifts = np.random.default_rng(seed).uniform(-largest, largest, (-(-count // GROUP), 2))
    for image, shifted, (x, y) in zip(
        images, out.reshape(images.shape), shifts[rows // GROUP], strict=True
    ):
        expected = ndimage.shift(image / 255, (-y, -x), order=1, mode="nearest")
        np.testing.assert_allclose(shifted, expected, atol=1e-5)


def test_images_that_are_shifted_by_a_pixel_at_most_take_the_short_way() -> None:
    for shift, side, expected in ((0.3, SIDE, Shift), (1.5, SIDE, Warp), (1.5, SIDE // 2, Shift)):
        examples = Examples(np.zeros((1, side, side), np.uint8), np.zeros(1, np.int64), 255)
        assert type(augmentation_for(Recipe(shift=shift), examples, 1)) is expected
    assert type(augmentation_for(Recipe(shift=0.3, shear=0.1), images_of_squares(1), 1)) is Warp


def test_scaling_changes_the_size_and_not_the_centre() -> None:
    images = warped(images_of_squares(GROUP * 50), scaling=0.2)
    areas = images.sum(axis=(1, 2)) / 81
    assert areas.min() < 0.8
    assert areas.max() > 1.2
    # The centre of the square is half a pixel off that of the image.
    np.testing.assert_allclose(centres(images), 14, atol=0.2)


@pytest.mark.parametrize("knob", [{"rotation": 30.0}, {"shear": 0.4}])
def test_rotation_and_shear_keep_the_area(knob: dict[str, Any]) -> None:
    images = warped(images_of_squares(GROUP * 20), **knob)
    np.testing.assert_allclose(images.sum(axis=(1, 2)), 81, rtol=0.05)
    assert (images[:, 10:19, 10:19].min(axis=(1, 2)) < 0.5).any()


def test_an_elastic_distortion_displaces_as_far_as_it_says() -> None:
    slope = np.broadcast_to(np.linspace(0, 1, SIDE, dtype=np.float32), (GROUP * 200, SIDE, SIDE))
    examples = Examples(slope, np.zeros(len(slope), np.int64), 1)
    moved = (warped(examples, elastic=1.5) - slope)[:, :, 10:18] * (SIDE - 1)
    assert moved.std() == pytest.approx(1.5, rel=0.1)
    neighbours = np.abs(np.diff(moved, axis=1))
    assert neighbours.mean() < 0.5


def test_the_warps_follow_the_seed_alone() -> None:
    knobs = {"shift": 2.0, "rotation": 10.0, "elastic": 1.0}
    one, same, other = (warped(images_of_squares(40), seed, **knobs) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_small_images_are_shifted_by_the_same_fraction() -> None:
    images = np.zeros((GROUP * 50, SIDE // 2, SIDE // 2), np.uint8)
    images[:, 5:9, 5:9] = 255
    examples = Examples(images, np.zeros(len(images), np.int64), 255)
    out = np.empty((len(images), images[0].size), np.float32)
    batch_loader(Recipe(shift=2.0), examples, len(images))(
        out, np.arange(len(images)), np.random.default_rng(1)
    )
    moved = centres(np.pad(out.reshape(images.shape), ((0, 0), (0, 14), (0, 14)))) - 6.5
    assert 0.9 < np.abs(moved).max() <= 1.0 + 1e-4


@pytest.mark.parametrize(
    "inputs",
    [
        np.arange(48, dtype=np.uint8).reshape(3, 16),
        np.arange(48, dtype=np.uint8).reshape(3, 16, 1),
        np.random.default_rng(1).random((3, 4, 4), dtype=np.float32),
    ],
    ids=["rows", "columns", "fractions"],
)
def test_inputs_that_are_not_images_are_loaded_as_they_are(inputs: npt.NDArray[Any]) -> None:
    examples = Examples(inputs, np.zeros(3, np.int64), 255)
    out = np.empty((2, 16), np.float32)
    batch_loader(Recipe(shift=2.0), examples, 2)(out, np.array([2, 0]), np.random.default_rng(1))
    np.testing.assert_array_equal(out, examples.scaled(np.array([2, 0])))
