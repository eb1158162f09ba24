"""What is given to an estimator, checked and brought into the trainer's own types."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array
from sklearn.utils.class_weight import compute_class_weight

from mlpserve_trainer.datasets.rows import drawn_rows
from mlpserve_trainer.datasets.split import VALIDATION_SEED, Examples, stratified
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = [
    "Doubles",
    "Integers",
    "checked_weights",
    "class_weights",
    "multiplied",
    "plain_value",
    "split_off",
    "unweighted",
    "validated",
]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def split_off(recipe: Recipe, examples: Examples) -> tuple[Examples, Examples | None]:
    """Return training and validation rows; the latter are None if nothing needs them, or few."""
    if recipe.calibration == "none" and not recipe.patience:
        return examples, None
    rows, watched = stratified(examples.labels, recipe.validation_fraction, VALIDATION_SEED)
    if not len(watched):
        return examples, None
    return examples.select(rows), examples.select(watched)


def unweighted(examples: Examples) -> Examples:
    """Return the rows as often as their weights say."""
    if examples.weights is None:
        return examples
    drawn = drawn_rows(examples.weights, examples.rows_in_epoch, np.random.default_rng(0))
    return examples.select(drawn)


def plain_value(name: str, value: Any) -> Any:
    """Return a parameter in the types of Python, as searches over parameters do not give them."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return (value,) if name == "hidden" and isinstance(value, int) else value


def checked_weights(sample_weight: Any, rows: int) -> Doubles:
    """Return the weight of each row, 1 if none are given; raise ValueError if they are unusable."""
    if sample_weight is None:
        return np.ones(rows)
    weights: Doubles = check_array(
        sample_weight, ensure_2d=False, dtype="float64", input_name="sample_weight"
    )
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight of shape {weights.shape}, expected ({rows},)")
    if weights.min() < 0:
        raise ValueError(f"sample_weight of {weights.min():g}, expected at least 0")
    if not weights.any():
        raise ValueError("every sample weight is zero, expected some above zero")
    return weights


def class_weights(
    given: Mapping[Any, float] | str, classes: npt.NDArray[Any], y: npt.NDArray[Any] | None
) -> Doubles:
    """Return the weight of each class; `y` is None where more rows are to come."""
    if y is None and not isinstance(given, Mapping):
        raise ValueError(
            f"class_weight {given!r} needs all rows, which partial_fit has not: "
            "expected a weight for each class"
        )
    labels = classes if y is None else y
    weights: Doubles = compute_class_weight(given, classes=classes, y=labels)
    for label, weight in zip(classes, weights, strict=True):
        if not 0 <= weight < np.inf:
            raise ValueError(
                f"class_weight of {weight:g} for {label}, expected a number of at least 0"
            )
    return weights


def multiplied(weights: Doubles, factors: Doubles) -> Doubles:
    """Return the weight of each row; raise ValueError if a float cannot hold their sum."""
    with np.errstate(over="ignore"):
        product: Doubles = weights * factors
        if not np.isfinite(product.sum()):
            raise ValueError("the weights of the rows sum up to infinity, expected smaller ones")
    return product


def validated(estimator: Any, *arrays: Any, **how: Any) -> Any:
    """Check arrays as scikit-learn does; before 1.6 that was a method of every estimator."""
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:
        return estimator._validate_data(*arrays, **how)
    return validate_data(estimator, *arrays, **how)
