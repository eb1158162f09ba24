"""MlpClassifier is an estimator of scikit-learn's, and trains as the trainer does."""

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlpserve_model import forward
from mlpserve_trainer import DataError, MlpClassifier, UsageError
from mlpserve_trainer.datasets.rows import distinct_rows, drawn_rows, rows_in_epoch

X, Y = make_classification(300, 6, n_informative=4, n_classes=3, random_state=1)
FAST: dict[str, Any] = {"hidden": (16,), "epochs": 10, "random_state": 0}


# Few epochs, as scikit-learn's tests of its own networks have; the recipe's 2,000 steps are slow.
@pytest.mark.parametrize("epochs", [20, pytest.param(None, marks=pytest.mark.slow)])
def test_scikit_learns_checks(epochs: int | None) -> None:
    from sklearn.utils.estimator_checks import check_estimator  # takes long to import

    check_estimator(MlpClassifier(epochs=epochs), on_skip=None)


@pytest.mark.parametrize("seed", range(3))
def test_the_defaults_learn_iris_and_digits(seed: int) -> None:
    for data, accuracy in (
        (load_iris(return_X_y=True), 0.93),
        (load_digits(return_X_y=True), 0.95),
    ):
        x, x_test, y, y_test = train_test_split(*data, test_size=0.2, random_state=seed)
        assert MlpClassifier(random_state=seed).fit(x, y).score(x_test, y_test) >= accuracy


def test_probabilities_are_those_of_its_network_and_weights() -> None:
    model = MlpClassifier(**FAST).fit(X, Y)
    assert_allclose(model.predict_proba(X), forward(model.network_, model.weights_, X), rtol=1e-12)
    assert_array_equal(model.predict(X), model.predict_proba(X).argmax(axis=1))


def test_sigmoid_outputs_give_probabilities_that_sum_to_one() -> None:
    model = MlpClassifier(output_activation="sigmoid", **FAST).fit(X, Y)
    assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_the_order_of_the_rows_and_their_repetition_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, len(X))
    once = MlpClassifier(**FAST).fit(X, Y, sample_weight=weights)
    rows = rng.permutation(np.repeat(np.arange(len(X)), weights))
    again = MlpClassifier(**FAST).fit(X[rows], Y[rows])
    assert_array_equal(once.predict_proba(X), again.predict_proba(X))


def test_a_heavy_class_is_predicted_more_often() -> None:
    light = MlpClassifier(**FAST).fit(X, Y)
    heavy = MlpClassifier(class_weight={0: 50, 1: 1, 2: 1}, **FAST).fit(X, Y)
    assert (heavy.predict(X) == 0).sum() > (light.predict(X) == 0).sum()


@pytest.mark.parametrize(
    ("parameters", "sample_weight", "message"),
    [
        ({"class_weight": {0: -1}}, None, "class_weight of -1 for 0, expected"),
        ({"class_weight": {0: np.nan}}, None, "class_weight of nan for 0, expected"),
        ({"class_weight": {0: np.inf}}, None, "class_weight of inf for 0, expected"),
        ({}, np.full(len(X), 1e308), "sum up to infinity"),
        ({"class_weight": {0: 1e200}}, np.full(len(X), 1e200), "sum up to infinity"),
    ],
)
def test_weights_that_cannot_be_weights_are_refused(
    parameters: dict[str, Any], sample_weight: Any, message: str
) -> None:
    for train in ("fit", "partial_fit"):
        model = MlpClassifier(**FAST, **parameters)
        classes = {"classes": [0, 1, 2]} if train == "partial_fit" else {}
        with pytest.raises(ValueError, match=message):
            getattr(model, train)(X, Y, sample_weight=sample_weight, **classes)


def test_values_too_large_to_standardise_are_named_by_their_column() -> None:
    with pytest.raises(DataError, match=r"column X\[:, 1\] has values of up to 3e\+200"):
        MlpClassifier(**FAST).fit(np.where(np.arange(6) == 1, 3e200 * np.sign(X), X), Y)


def test_temperature_is_fitted_unless_calibration_is_none() -> None:
    assert MlpClassifier(**FAST).fit(X, Y).temperature_ != 1
    assert MlpClassifier(calibration="none", **FAST).fit(X, Y).temperature_ == 1


def test_partial_fit_goes_on_where_it_ended() -> None:
    model = MlpClassifier(**FAST)
    for rows in np.array_split(np.tile(np.arange(len(X)), 20), 60):
        model.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
    assert model.n_iter_ == len(model.loss_curve_) == 60
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.score(X, Y) > 0.7


def test_partial_fit_goes_on_after_fit_with_its_calibration() -> None:
    model = MlpClassifier(**FAST).fit(X, Y)
    before, temperature = model.predict_proba(X), model.temperature_
    model.set_params(learning_rate=1e-9).partial_fit(X, Y)
    assert model.temperature_ == temperature != 1
    np.testing.assert_allclose(model.predict_proba(X), before, atol=1e-4)


def test_partial_fit_needs_the_classes_first_and_no_others_later() -> None:
    model = MlpClassifier(**FAST)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, Y)
    model.partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="outside the classes"):
        model.partial_fit(X, Y + 5)
    with pytest.raises(ValueError, match="expected those of the first call"):
        model.partial_fit(X, Y, classes=[0, 1])


def test_it_works_in_pipelines_searches_and_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), MlpClassifier(random_state=0))
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.6
    grid = {"hidden": [(8,), (8, 8)], "learning_rate": np.array([0.001, 0.01])}
    search = GridSearchCV(MlpClassifier(epochs=5, random_state=0), grid, cv=2).fit(X, Y)
    assert search.best_score_ > 0.4


def test_it_is_cloned_and_pickled_whole() -> None:
    model = MlpClassifier(hidden=(8,), activations=("gelu", "softmax"), epochs=3, random_state=0)
    assert clone(model).get_params() == model.get_params()
    model.fit(X, Y)
    copy = pickle.loads(pickle.dumps(model))
    assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    copy.partial_fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"recipe": "qick"}, "did you mean 'quick'"),
        ({"optimizer": "lion"}, "expected one of adam"),
        ({"hidden": (0,)}, "sizes above 0"),
        ({"activations": ("relu",)}, "expected 2|softmax or sigmoid"),
    ],
)
def test_a_parameter_that_is_none_says_what_would_be(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        MlpClassifier(**parameters).fit(X, Y)


def test_equal_rows_are_one_with_their_weights_added() -> None:
    x = np.array([[1.0, 2], [0.0, 5], [1, 2], [-0.0, 5], [1, 2], [7, 7]])
    labels, weights = np.array([0, 1, 0, 1, 1, 0]), np.array([1.0, 1.5, 3, 0.5, 0.5, 0])
    rows, of_labels, sums = distinct_rows(x, labels, weights)
    assert sorted(zip(rows.tolist(), of_labels.tolist(), strict=True)) == [
        *(([0.0, 5.0], 1), ([1.0, 2.0], 0), ([1.0, 2.0], 1))
    ]
    assert sorted(sums.tolist()) == [0.5, 2, 4]


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_drawn_as_often_as_their_weights_say(seed: int) -> None:
    weights = np.array([0.25, 3, 1, 0.75, 2])
    drawn = np.bincount(drawn_rows(weights, 7, np.random.default_rng(seed)), minlength=5)
    assert drawn.sum() == 7
    assert (np.abs(drawn - weights) < 1).all()
    assert rows_in_epoch(weights) == 7


@pytest.mark.parametrize(("scale", "rows"), [(1e-6, 3), (1, 6), (1e6, 30)])
def test_an_epoch_is_bounded_whatever_the_weights_are(scale: float, rows: int) -> None:
    assert rows_in_epoch(np.array([1, 2, 3.0]) * scale) == rows
