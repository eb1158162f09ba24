"""Activations against their formulas, written with SciPy's functions."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, ndtr

from mlpserve_model.nn.activations import HIDDEN

FORMULAS: dict[str, Any] = {
    "relu": lambda z: np.where(z > 0, z, 0),
    "sigmoid": expit,
    "tanh": np.tanh,
    "identity": lambda z: z,
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
    "gelu": lambda z: z * ndtr(z),
    "silu": lambda z: z * expit(z),
}
# float32 has seven digits, of values of up to 20.
TOLERANCE = {np.float64: 1e-14, np.float32: 2e-6}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_an_activation_is_its_formula(name: str, kind: type[Any]) -> None:
    z = np.linspace(-20, 20, 4001)
    a = HIDDEN[name].forward(z.astype(kind))
    assert a.dtype == kind
    assert_allclose(a, FORMULAS[name](z), atol=TOLERANCE[kind], rtol=TOLERANCE[kind])


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_huge_pre_activations_give_numbers_without_a_warning(name: str, kind: type[Any]) -> None:
    z = np.array([[-1e30, -1e4, -0.0, 0.0, 1e4, 1e30]], kind)
    a = HIDDEN[name].forward(z)
    gradient = HIDDEN[name].gradient(np.ones_like(z), z, a)
    assert a.dtype == gradient.dtype == kind
    assert np.isfinite(a).all()
    assert np.isfinite(gradient).all()
    assert a[0, 2] == a[0, 3]


@pytest.mark.parametrize("name", HIDDEN)
def test_a_nan_stays_one(name: str) -> None:
    assert np.isnan(HIDDEN[name].forward(np.array([[np.nan]], np.float32))).all()
