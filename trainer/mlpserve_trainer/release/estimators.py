"""Estimators of scikit-learn as versions: folded, calibrated, judged and published."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from mlpserve_model import (
    CHAMPION,
    DatasetInfo,
    Draft,
    Signature,
    Store,
    UnsupportedModel,
)
from mlpserve_model.interchange.folding import Activation, Affine, Scale, Step, fold
from mlpserve_model.interchange.imported import (
    SEVERAL_LABELS,
    ImportedNetwork,
    Metadata,
    imported_network,
)
from mlpserve_trainer.datasets.dataset import known_labels, rows_digest
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.errors import DataError, UsageError
from mlpserve_trainer.estimator.classifier import MlpClassifier
from mlpserve_trainer.release.foreign import Published, publish_foreign
from mlpserve_trainer.release.gate import Rules

__all__ = ["publish"]

CALIBRATIONS = ("temperature", "none")
NAMES = {"logistic": "sigmoid"}  # scikit-learn's; its other activations have our names
SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
SUPPORTED = (
    "expected a fitted MlpClassifier of mlpserve_trainer, an MLPClassifier of scikit-learn, or a "
    "Pipeline of StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler and one of them"
)


def publish(
    store: Store | Path | str,
    estimator: Any,
    X_holdout: Any,  # noqa: N803
    y_holdout: Any,
    *,
    model: str | None = None,
    class_names: Sequence[str] | None = None,
    input_shape: tuple[int, ...] | None = None,
    input_maximum: float | None = None,
    rules: Rules | None = None,
    alias: str = CHAMPION,
    calibration: str = "temperature",
    source: str = "holdout",
) -> Published:
    """Publish a fitted estimator, with report and card, and promote it if it passes the gate.

    Scalers before the network are folded into its first layer, so callers send rows as the
    pipeline takes them.

    Args:
        store: The store, or its place; then `model` is needed.
        estimator: A `MlpClassifier`, scikit-learn's `MLPClassifier`, a `Pipeline` of scalers and
            one of them, or a search whose best estimator is one of these.
        X_holdout: Rows (n, columns) that it was not trained on, as its `predict` takes them. A
            fifth of them fits the temperature, the others judge.
        y_holdout: Their labels (n,).
        model: Name of the model in the store.
        class_names: A name for each class, in the order of `classes_`; None for the labels.
        input_shape: Shape of one instance; None for (columns,).
        input_maximum: For rows of pixels from 0 to this value: callers may then send uint8, or
            floats from 0 to 1. None for real numbers.
        rules: How strict the gate is.
        alias: The alias that moves to it, if it passes.
        calibration: "temperature" or "none".
        source: Where the holdout came from, for people.

    Raises:
        UsageError: The estimator cannot become a version; the message says which are supported.
        DataError: The holdout does not fit, or is too small.
        StoreError: The store refuses.

    """
    if calibration not in CALIBRATIONS:
        raise UsageError(f"calibration {calibration!r}, expected one of {', '.join(CALIBRATIONS)}")
    if input_maximum is not None and not 0 < input_maximum <= 255:
        raise UsageError(f"input_maximum {input_maximum:g}, expected above 0 and at most 255")
    if not isinstance(store, Store):
        if model is None:
            raise UsageError("a place of a store needs the name of the model: publish(model=...)")
        store = Store(store, model)
    estimator = _found(estimator)
    found, labels = _imported(estimator, input_maximum)
    names = _class_names(labels, class_names)
    shape = input_shape or (found.network.inputs,)
    if math.prod(shape) != found.network.inputs:
        raise UsageError(f"input_shape {shape} for a network of {found.network.inputs} inputs")
    kind, maximum = ("real", 1.0) if input_maximum is None else ("pixels", float(input_maximum))
    signature = Signature(shape, maximum, names, kind)
    _check_columns(estimator, X_holdout, source)
    examples = _examples(X_holdout, _names(y_holdout, labels, names), signature, source)
    draft = Draft(
        model=store.model,
        network=found.network,
        signature=signature,
        dataset=DatasetInfo("unknown", rows_digest(examples.inputs, examples.labels, names), ""),
        recipe={},
        seed=0,
        libraries={"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        metrics={},
        extra={"imported": {"estimator": repr(estimator)[:2000]}},
    )
    return publish_foreign(
        store,
        draft,
        found.weights,
        examples,
        rules or Rules(),
        source,
        alias,
        calibrates=calibration != "none",
    )


def _found(estimator: Any) -> Any:
    """Return the estimator that a search has found, or the one that is given."""
    if hasattr(estimator, "refit") and not hasattr(estimator, "best_estimator_"):
        raise UsageError(f"{_shown(estimator)} has no best estimator: fit it, with refit=True")
    return getattr(estimator, "best_estimator_", estimator)


def _class_names(labels: Sequence[Any], given: Sequence[str] | None) -> tuple[str, ...]:
    """Return a name for each label."""
    names = tuple(map(str, labels if given is None else given))
    if len(names) != len(labels):
        raise UsageError(
            f"{len(names)} class names for {len(labels)} classes: expected one for each of "
            f"{', '.join(map(str, labels))}"
        )
    if len(set(names)) < len(names) or "" in names:
        raise UsageError(
            f"the class names {', '.join(map(repr, names))[:500]}: expected a different one for "
            "each class, of at least one character"
        )
    return names


def _names(y: Any, labels: Any, names: tuple[str, ...]) -> list[str]:
    """Return the class name of each holdout row: by the label's value, else by its text."""
    by_text = dict(zip(map(str, labels), names, strict=True))
    by_value = dict(zip(np.asarray(labels).tolist(), names, strict=True))
    rows = np.asarray(y).ravel().tolist()
    return [by_value.get(label) or by_text.get(str(label), str(label)) for label in rows]


def _check_columns(estimator: Any, x: Any, source: str) -> None:
    """Raise DataError if a table has other columns than the estimator was fitted with."""
    expected = list(getattr(estimator, "feature_names_in_", ()))
    found = list(getattr(x, "columns", expected))
    if expected and found != expected:
        raise DataError(
            f"{source}: X_holdout has the columns {', '.join(map(str, found))[:500]}, expected "
            f"those of the training in their order: {', '.join(expected)[:500]}"
        )


def _imported(estimator: Any, input_maximum: float | None) -> tuple[ImportedNetwork, Any]:
    """Return the network of an estimator, and its labels."""
    *scalers, classifier = list(_steps(estimator)) or [None]
    if not isinstance(classifier, MlpClassifier | MLPClassifier):
        raise UsageError(f"{_shown(classifier)} cannot become a version: {SUPPORTED}")
    try:
        check_is_fitted(classifier)
        before = [_scale(scaler) for scaler in scalers]
    except NotFittedError as error:
        raise UsageError(f"the estimator is not fitted: {SUPPORTED}") from error
    if len(classifier.classes_) < 2:
        raise UsageError("the estimator was fitted with one class, expected at least two")
    if input_maximum is not None:  # the version takes 0 to 1, and the estimator 0 to the maximum
        before.insert(0, Scale(np.full(1, float(input_maximum)), np.zeros(1)))
    weights, activations = _layers(classifier)
    inputs = weights[0][0].shape[0]
    steps: list[Step] = [_widened(scale, inputs) for scale in before]
    for (w, b), name in zip(weights, activations, strict=True):
        steps += [Affine(w, b), Activation(name)]
    try:
        layers, names = fold(steps, inputs)
        return imported_network(layers, names, Metadata()), classifier.classes_
    except UnsupportedModel as error:
        raise UsageError(str(error)) from error


def _steps(estimator: Any) -> Iterator[Any]:
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            yield from _steps(step)
    elif estimator is not None and not (isinstance(estimator, str) and estimator == "passthrough"):
        yield estimator


def _shown(estimator: Any) -> str:
    """Return what an estimator is called in messages."""
    kind = estimator if isinstance(estimator, type) else type(estimator)
    return "an empty pipeline" if estimator is None else kind.__name__


def _scale(scaler: Any) -> Scale:
    if isinstance(scaler, SCALERS):
        check_is_fitted(scaler)
    if isinstance(scaler, StandardScaler):
        return _centred(scaler.mean_ if scaler.with_mean else None, scaler.scale_)
    if isinstance(scaler, RobustScaler):
        return _centred(scaler.center_, scaler.scale_)
    if isinstance(scaler, MaxAbsScaler):
        return _centred(None, scaler.scale_)
    if isinstance(scaler, MinMaxScaler) and not scaler.clip:
        return Scale(scaler.scale_, scaler.min_)
    shown = " ".join(repr(scaler).split())[:200]
    raise UsageError(f"{shown} before the network cannot be folded into it: {SUPPORTED}")


def _centred(mean: Any, scale: Any) -> Scale:
    factor = np.ones(1) if scale is None else 1 / scale
    offset = np.zeros(1) if mean is None else -mean * factor
    factor, offset = np.broadcast_arrays(factor, offset)
    return Scale(factor, offset)


def _widened(scale: Scale, inputs: int) -> Scale:
    if len(scale.factor) not in (1, inputs):
        raise UsageError(f"a scaler of {len(scale.factor)} columns before a network of {inputs}")
    return Scale(np.resize(scale.factor, inputs), np.resize(scale.offset, inputs))


def _layers(classifier: Any) -> tuple[list[tuple[Any, Any]], list[str]]:
    """Return `w` and `b` of each layer, and their activations."""
    if isinstance(classifier, MlpClassifier):
        return [(w, b) for w, b in classifier.weights_], list(classifier.network_.activations)
    if classifier.out_activation_ == "logistic" and classifier.n_outputs_ > 1:
        raise UsageError(SEVERAL_LABELS)
    weights = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    names: list[str] = [classifier.activation] * (len(weights) - 1) + [classifier.out_activation_]
    return weights, [NAMES.get(name, name) for name in names]


def _examples(x: Any, labels: list[str], signature: Signature, source: str) -> Examples:
    """Return the holdout as the version takes it; raises DataError."""
    try:
        with np.errstate(invalid="ignore"):  # as below
            rows = np.asarray(x.toarray() if hasattr(x, "toarray") else x, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: expected numbers in X_holdout: {error}") from error
    inputs = math.prod(signature.input_shape)
    if rows.size != len(labels) * inputs or not len(labels):
        raise DataError(
            f"{source}: X_holdout of shape {rows.shape} for {len(labels)} labels, expected rows "
            f"of {inputs} values"
        )
    rows = rows.reshape(-1, *signature.input_shape)
    are_pixels = signature.input_kind == "pixels"
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        rows = rows / signature.input_maximum if are_pixels else rows
        values = rows.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{source}: expected finite numbers in X_holdout")
    if are_pixels and not (rows.min() >= 0 and rows.max() <= 1):
        raise DataError(
            f"{source}: X_holdout beyond 0 to {signature.input_maximum:g}, the input_maximum"
        )
    return Examples(
        values,
        known_labels(source, np.array(labels), signature.class_names),
        signature.input_maximum,
    )
