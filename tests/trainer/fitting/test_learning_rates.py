import math

import numpy as np
import pytest

from mlpserve_trainer.fitting.learning_rates import rate_fraction


@pytest.mark.parametrize(
    ("name", "fractions"),
    [
        ("constant", (1, 1, 1, 1)),
        ("linear", (1, 0.75, 0.5, 0)),
        ("cosine", (1, (1 + math.sqrt(0.5)) / 2, 0.5, 0)),
        ("step", (1, 1, 0.1, 0.01)),
    ],
)
def test_a_schedule_goes_from_the_whole_rate_to_its_end(
    name: str, fractions: tuple[float, ...]
) -> None:
    computed = [rate_fraction(name, 0.0, progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(computed, fractions, atol=1e-15)


def test_one_cycle_rises_from_a_25th_and_ends_far_below_it() -> None:
    computed = [rate_fraction("one_cycle", 0.0, p) for p in (0.0, 0.15, 0.3, 0.65, 1.0)]
    np.testing.assert_allclose(computed, (0.04, 0.52, 1, 0.5 + 2e-6, 4e-6), atol=1e-15)


def test_a_warm_up_rises_in_a_line_and_the_schedule_follows_it() -> None:
    computed = [rate_fraction("cosine", 0.2, p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    np.testing.assert_allclose(computed, (0, 0.5, 1, 0.5, 0), atol=1e-15)
