import numpy as np
import pytest

from mlpserve_trainer.corrections.picture import drawing

IMAGE = np.zeros((4, 4), np.float32)
IMAGE[1, 2], IMAGE[3, 0] = 1, 0.5


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 4, 4), (16,)])
def test_an_image_is_drawn_whatever_shape_it_has(shape: tuple[int, ...]) -> None:
    assert drawing(IMAGE.reshape(shape)) == "\n    @@\n\n++"


@pytest.mark.parametrize(
    "instance",
    [
        np.zeros(15, np.float32),
        np.zeros((2, 2), np.float32),
        np.zeros((65, 65), np.float32),
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4), 1.5, np.float32),
        np.full(16, -0.1, np.float32),
    ],
)
def test_numbers_that_are_not_an_image_are_not_drawn(instance: np.ndarray) -> None:
    assert drawing(instance) == ""
