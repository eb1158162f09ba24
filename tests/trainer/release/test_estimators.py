"""Fitted estimators are published folded, calibrated, judged, and answered as they predict."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from mlpserve_model import Store, StoreError
from mlpserve_trainer import DataError, MlpClassifier, Rules, UsageError, publish
from tests.support.numbers import SIGNALLING_NAN, SIGNALLING_NAN_32

WINE = load_wine()
X, X_HOLDOUT, Y, Y_HOLDOUT = train_test_split(
    WINE.data, WINE.target_names[WINE.target], test_size=0.4, random_state=0, stratify=WINE.target
)
RULES = Rules(min_accuracy=0.6)


def ours(**more: Any) -> MlpClassifier:
    return MlpClassifier(hidden=(12,), epochs=30, batch_size=16, random_state=0, **more)


def theirs(**more: Any) -> MLPClassifier:
    return MLPClassifier((12, 6), max_iter=300, random_state=0, **more)


def fitted(estimator: Any, x: Any = X, y: Any = Y) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


ESTIMATORS = {
    "ours": ours(),
    "ours without standardising": make_pipeline(StandardScaler(), ours(standardise=False)),
    "ours with sigmoid outputs": ours(output_activation="sigmoid"),
    "theirs": make_pipeline(StandardScaler(), theirs()),
    "theirs with tanh": make_pipeline(MinMaxScaler(), theirs(activation="tanh")),
    "theirs with logistic": make_pipeline(RobustScaler(), theirs(activation="logistic")),
    "several scalers": make_pipeline(
        "passthrough", MaxAbsScaler(), make_pipeline(StandardScaler(with_mean=False), theirs())
    ),
    "a search": GridSearchCV(make_pipeline(StandardScaler(), theirs()), {}, cv=2),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_version_answers_as_the_estimator_predicts(name: str, tmp_path: Path) -> None:
    estimator = fitted(ESTIMATORS[name])
    published = publish(
        tmp_path, estimator, X_HOLDOUT, Y_HOLDOUT, model="wine", rules=RULES, calibration="none"
    )
    model = Store(tmp_path, "wine").load(1)
    assert model.manifest.gate.verdict == published.manifest.gate.verdict == "PROMOTED"
    assert model.manifest.signature.class_names == tuple(WINE.target_names)
    assert model.manifest.signature.input_kind == "real"
    answers = model.predict(X_HOLDOUT.astype(np.float32))
    answers /= answers.sum(axis=1, keepdims=True)
    assert_allclose(answers, estimator.predict_proba(X_HOLDOUT), atol=1e-4)


def test_it_is_calibrated_judged_and_reported_with_the_estimator_named(tmp_path: Path) -> None:
    store = Store(tmp_path, "wine")
    publish(store, fitted(ESTIMATORS["theirs"]), X_HOLDOUT, Y_HOLDOUT, rules=RULES)
    manifest = store.manifest(1)
    assert {"accuracy", "log_loss", "calibration_error"} <= set(manifest.metrics)
    assert "MLPClassifier" in manifest.extra["imported"]["estimator"]
    assert store.aliases()["champion"] == 1
    for name in ("report.html", "model_card.md", "reference.json"):
        assert (tmp_path / "wine" / "1" / name).exists()
    bad = fitted(make_pipeline(StandardScaler(), ours()), X, np.roll(Y, 1))
    rejected = publish(store, bad, X_HOLDOUT, Y_HOLDOUT, rules=Rules(min_accuracy=0.9))
    assert rejected.manifest.gate.verdict == "REJECTED"
    assert store.aliases()["champion"] == 1


def test_two_classes_of_scikit_learn_become_two_probabilities(tmp_path: Path) -> None:
    some, some_held = np.isin(Y, ["class_0", "class_1"]), np.isin(Y_HOLDOUT, ["class_0", "class_1"])
    estimator = fitted(ESTIMATORS["theirs"], X[some], Y[some])
    rows = X_HOLDOUT[some_held]
    publish(tmp_path, estimator, rows, Y_HOLDOUT[some_held], model="two", rules=RULES,
            calibration="none", class_names=("red", "white"))  # fmt: skip
    model = Store(tmp_path, "two").load(1)
    assert model.manifest.signature.class_names == ("red", "white")
    answers = model.predict(rows.astype(np.float32))
    assert_allclose(answers, estimator.predict_proba(rows), atol=1e-4)


@pytest.mark.parametrize("estimator", [ours(), theirs()])
def test_pixels_are_published_for_callers_that_send_uint8(estimator: Any, tmp_path: Path) -> None:
    x, y = load_digits(return_X_y=True)
    fitted(estimator, x[:900], y[:900])
    publish(tmp_path, estimator, x[900:], y[900:], model="digits", input_shape=(8, 8),
            input_maximum=16, rules=RULES, calibration="none")  # fmt: skip
    model = Store(tmp_path, "digits").load(1)
    signature = model.manifest.signature
    assert (signature.input_kind, signature.input_maximum) == ("pixels", 16)
    assert signature.input_shape == (8, 8)
    answers = model.predict((x[900:] / 16).astype(np.float32))
    assert_allclose(answers, estimator.predict_proba(x[900:]), atol=1e-4)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "LogisticRegression cannot become a version: expected a fitted"),
        (make_pipeline(Normalizer(), theirs()), r"Normalizer\(\) before the network"),
        (make_pipeline(MinMaxScaler(clip=True), theirs()), r"MinMaxScaler\(clip=True\) before"),
        (
            make_pipeline(ColumnTransformer([("s", StandardScaler(), [0])]), theirs()),
            r"ColumnTransformer\(.*\) before the network cannot be folded",
        ),
        (StandardScaler(), "StandardScaler cannot become a version"),
        (GridSearchCV(ours(), {}, cv=2, refit=False), "no best estimator: fit it, with refit=True"),
    ],
)
def test_what_cannot_become_a_version_says_what_can(
    estimator: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        publish(tmp_path, fitted(estimator), X_HOLDOUT, Y_HOLDOUT, model="wine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("estimator", [ours(), make_pipeline(StandardScaler(), theirs())])
def test_an_estimator_that_is_not_fitted_is_refused(estimator: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not fitted"):
        publish(tmp_path, estimator, X_HOLDOUT, Y_HOLDOUT, model="wine")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "an empty pipeline cannot become a version"),
        (Pipeline([]), "an empty pipeline cannot become a version"),
        (7, "int cannot become a version"),
        (MlpClassifier, "MlpClassifier cannot become a version: expected a fitted"),
        (GridSearchCV(ours(), {}), "no best estimator: fit it"),
    ],
)
def test_what_is_no_fitted_estimator_is_refused(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        publish(tmp_path, given, X_HOLDOUT, Y_HOLDOUT, model="wine")


def test_an_estimator_of_one_class_is_refused(tmp_path: Path) -> None:
    estimator = fitted(theirs(), X, np.full(len(X), "class_0"))
    with pytest.raises(UsageError, match="one class, expected at least two"):
        publish(tmp_path, estimator, X_HOLDOUT, Y_HOLDOUT, model="wine")


def test_labels_of_the_holdout_are_matched_by_value(tmp_path: Path) -> None:
    estimator = fitted(ours(), WINE.data, WINE.target.astype(float))
    for labels in (WINE.target, WINE.target.astype(float), list(map(float, WINE.target))):
        found = publish(tmp_path, estimator, WINE.data, labels, model="wine", rules=RULES)
        assert found.manifest.signature.class_names == ("0.0", "1.0", "2.0")


def test_the_columns_of_a_table_have_to_be_those_of_the_training(tmp_path: Path) -> None:
    names = list(WINE.feature_names)
    estimator = fitted(make_pipeline(StandardScaler(), ours()), pandas.DataFrame(X, columns=names))
    table = pandas.DataFrame(X_HOLDOUT, columns=names)
    publish(tmp_path, estimator, table, Y_HOLDOUT, model="wine", rules=RULES)
    with pytest.raises(DataError, match=r"the columns proline, .*, expected .*: alcohol"):
        publish(tmp_path, estimator, table[names[::-1]], Y_HOLDOUT, model="wine")


def test_sparse_rows_of_a_holdout_are_taken(tmp_path: Path) -> None:
    estimator = fitted(theirs(), csr_matrix(X), Y)
    publish(tmp_path, estimator, csr_matrix(X_HOLDOUT), Y_HOLDOUT, model="wine", rules=RULES)


def test_several_labels_a_row_are_refused(tmp_path: Path) -> None:
    y = np.stack([WINE.target > 0, WINE.target > 1], axis=1).astype(int)
    with pytest.raises(UsageError, match="several labels cannot become a version"):
        publish(tmp_path, fitted(theirs(), WINE.data, y), X_HOLDOUT, Y_HOLDOUT, model="wine")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X_HOLDOUT[:, :5], Y_HOLDOUT, "expected rows of 13 values"),
        (X_HOLDOUT, Y_HOLDOUT[1:], "expected rows of 13 values"),
        (X_HOLDOUT, np.full(len(X_HOLDOUT), "class_9"), "unknown labels 'class_9'"),
        (X_HOLDOUT * np.nan, Y_HOLDOUT, "expected finite numbers"),
        (np.full(X_HOLDOUT.shape, SIGNALLING_NAN), Y_HOLDOUT, "expected finite numbers"),
        (np.full(X_HOLDOUT.shape, SIGNALLING_NAN_32), Y_HOLDOUT, "expected finite numbers"),
        (np.full(X_HOLDOUT.shape, 1e300), Y_HOLDOUT, "expected finite numbers"),
        (X_HOLDOUT.astype(str), Y_HOLDOUT, None),
        (np.full(X_HOLDOUT.shape, "red"), Y_HOLDOUT, "expected numbers in X_holdout"),
    ],
)
def test_a_holdout_that_does_not_fit_is_refused(
    x: Any, y: Any, message: str | None, tmp_path: Path
) -> None:
    estimator = fitted(ESTIMATORS["theirs"])
    if message is None:  # text of numbers is read as numbers
        publish(tmp_path, estimator, x, y, model="wine", rules=RULES)
        return
    with pytest.raises(DataError, match=message):
        publish(tmp_path, estimator, x, y, model="wine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"class_names": ("red",)},
            "1 class names for 3 classes: expected one for each of class_0",
        ),
        ({"input_shape": (2, 6)}, r"input_shape \(2, 6\) for a network of 13 inputs"),
        ({"class_names": ("a", "", "c")}, "expected a different one for each class"),
        ({"class_names": ("a", "b", "a")}, "expected a different one for each class"),
        ({"calibration": "platt"}, "calibration 'platt', expected one of temperature, none"),
        ({"input_maximum": 0}, "input_maximum 0, expected above 0 and at most 255"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        publish(tmp_path, fitted(ours()), X_HOLDOUT, Y_HOLDOUT, model="wine", **options)


def test_a_place_needs_the_name_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the name of the model"):
        publish(tmp_path, fitted(ours()), X_HOLDOUT, Y_HOLDOUT)
    with pytest.raises(StoreError):
        publish(tmp_path, fitted(ours()), X_HOLDOUT, Y_HOLDOUT, model="../wine")
