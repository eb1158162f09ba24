import tracemalloc
from typing import Any

import numpy as np
import pytest

from mlpserve_trainer.corrections.nearest import ROWS_AT_ONCE, nearest
from mlpserve_trainer.datasets.split import Examples

NAMES = ("even", "odd")


def rows(count: int, dtype: type = np.uint8) -> Examples:
    inputs: Any = np.random.default_rng(0).integers(0, 256, (count, 5, 5)).astype(dtype)
    maximum = 255 if dtype is np.uint8 else 1
    return Examples(inputs, np.arange(count) % 2, maximum)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1, 7, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_the_nearest_rows_are_those_that_a_loop_finds(count: int, dtype: type) -> None:
    training = rows(count, dtype)
    instance = np.random.default_rng(1).random((5, 5), np.float32)
    distances = [
        float(np.linalg.norm(training.scaled(slice(i, i + 1))[0].astype(float) - instance.ravel()))
        for i in range(count)
    ]
    expected = sorted(range(count), key=distances.__getitem__)[:5]
    found = nearest(instance, training, NAMES, 5)
    assert [one.row for one in found] == expected
    assert [one.label for one in found] == [NAMES[row % 2] for row in expected]
    np.testing.assert_allclose(
        [one.distance for one in found], [distances[row] for row in expected], rtol=1e-5
    )


def test_a_row_itself_is_at_distance_0_and_of_equal_rows_the_first_comes_first() -> None:
    training = rows(20)
    twice = training.concat(training)
    found = nearest(training.scaled()[3], twice, NAMES, 2)
    assert [(one.row, one.distance) for one in found] == [(3, 0.0), (23, 0.0)]


def test_many_rows_are_compared_a_few_at_a_time() -> None:
    training = rows(40 * ROWS_AT_ONCE)
    tracemalloc.start()
    nearest(np.zeros(25, np.float32), training, NAMES, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * ROWS_AT_ONCE * 25 * 4
