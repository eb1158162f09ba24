"""The check of float32 values, at the edges of what it compares."""

import numpy as np
import pytest

from mlpserve_server.dataplane.tensors import _check_scaled
from mlpserve_server.errors import InvalidInput

LEAST = np.float32(2**-149)


@pytest.mark.parametrize("value", [0.0, -0.0, LEAST, 0.5, np.nextafter(np.float32(1), 0), 1.0])
def test_values_from_0_to_1_pass(value: float) -> None:
    _check_scaled(np.array([[0.25, value]], "<f4"), "instance", 0)


@pytest.mark.parametrize(
    "value", [-LEAST, -0.5, np.nextafter(np.float32(1), 2), 2.0, np.inf, -np.inf, np.nan, -np.nan]
)
@pytest.mark.parametrize("others", [0.25, -0.0])
def test_all_others_are_refused(value: float, others: float) -> None:
    with pytest.raises(InvalidInput, match=r"in row 7 at 1, expected finite values from 0 to 1"):
        _check_scaled(np.array([[others, value]], "<f4"), "instance", 7)
