"""scikit-learn's networks in .skops files, as skops writes them."""

import json
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from mlpserve_model import UnsupportedModel, forward
from mlpserve_model.interchange import skops_file
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.importing import ImportOptions, import_network

RNG = np.random.default_rng(8)
X = RNG.normal(3, [0.1, 1, 50, 1], (60, 4))
NAMES = np.array(["ash", "birch", "cedar"])[RNG.integers(0, 3, 60)]
NETWORK = {"hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0}


def dump(estimator: Any, path: Path) -> None:
    # Imported here: it imports all of scikit-learn, which every worker that collects would.
    import skops.io

    skops.io.dump(estimator, path)


def fitted(estimator: Any, y: Any = NAMES) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


def read(estimator: Any, folder: Path) -> ImportedNetwork:
    path = folder / "model.skops"
    dump(estimator, path)
    return import_network(path, ImportOptions())


def assert_same(estimator: Any, folder: Path) -> ImportedNetwork:
    found = read(estimator, folder)
    answers = forward(found.network, found.weights, X.astype(np.float32))
    np.testing.assert_allclose(answers, estimator.predict_proba(X), atol=1e-5)
    assert found.metadata.class_names == tuple(map(str, estimator.classes_))
    assert found.metadata.input_kind == "real"
    return found


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_every_activation_of_scikit_learn(activation: str, tmp_path: Path) -> None:
    assert_same(fitted(MLPClassifier(**NETWORK, activation=activation)), tmp_path)


@pytest.mark.parametrize(
    "scalers",
    [
        [StandardScaler()], [StandardScaler(with_mean=False)], [StandardScaler(with_std=False)],
        [StandardScaler(with_mean=False, with_std=False)], [MinMaxScaler()], [MaxAbsScaler()],
        [RobustScaler()], [RobustScaler(with_centering=False)],
        [MinMaxScaler(), StandardScaler()], [make_pipeline(MinMaxScaler(), StandardScaler())],
        ["passthrough"],
    ],
    ids=str,
)  # fmt: skip
def test_scalers_go_into_the_first_layer(scalers: list[Any], tmp_path: Path) -> None:
    found = assert_same(fitted(make_pipeline(*scalers, MLPClassifier(**NETWORK))), tmp_path)
    assert found.network.layer_sizes == (4, 6, 5, 3)


def test_two_classes(tmp_path: Path) -> None:
    assert_same(fitted(MLPClassifier(**NETWORK), NAMES == "ash"), tmp_path)


def test_several_labels_of_a_row_are_refused(tmp_path: Path) -> None:
    several = (NAMES[:, None] == np.array(["ash", "birch"])).astype(int)
    with pytest.raises(UnsupportedModel, match="several labels cannot become a version"):
        read(fitted(MLPClassifier(**NETWORK), several), tmp_path)


OTHERS = {
    "MLPRegressor where an MLPClassifier": MLPRegressor(**NETWORK),
    "LogisticRegression where": make_pipeline(StandardScaler(), LogisticRegression()),
    "Normalizer before the network": make_pipeline(Normalizer(), MLPClassifier(**NETWORK)),
    "PolynomialFeatures before": make_pipeline(PolynomialFeatures(), MLPClassifier(**NETWORK)),
    "clip=True": make_pipeline(MinMaxScaler(clip=True), MLPClassifier(**NETWORK)),
}


@pytest.mark.parametrize("words", OTHERS)
def test_other_estimators_are_named(words: str, tmp_path: Path) -> None:
    y = NAMES == "ash"
    with pytest.raises(UnsupportedModel, match=words):
        read(fitted(OTHERS[words], y), tmp_path)


def test_one_that_is_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="not fitted"):
        read(MLPClassifier(), tmp_path)


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    """A file whose schema is another one."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop("schema.json"))
    change(schema["content"]["content"])
    found = path.with_name("changed.skops")
    with zipfile.ZipFile(found, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr("schema.json", json.dumps(schema))
    return found


def test_an_array_named_many_times_is_read_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.skops"
    dump(fitted(MLPClassifier(**NETWORK)), path)

    def repeat(attributes: Any, times: int) -> None:
        for name in ("coefs_", "intercepts_"):
            attributes[name]["content"] = times * attributes[name]["content"][:1]

    with pytest.raises(UnsupportedModel, match="1000 weights"):
        import_network(changed(path, partial(repeat, times=1000)), ImportOptions())
    monkeypatch.setattr(skops_file, "MAX_FILE_BYTES", 1000)
    with pytest.raises(UnsupportedModel, match="expected at most"):
        import_network(changed(path, partial(repeat, times=60)), ImportOptions())


def test_types_of_strangers_are_never_constructed(tmp_path: Path) -> None:
    """What skops would ask its caller to trust has no meaning here."""
    path = tmp_path / "model.skops"
    dump(fitted(MLPClassifier(**NETWORK)), path)
    call = {
        "__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": "id",
    }  # fmt: skip
    for name in ("activation", "coefs_", "classes_"):
        replaced = changed(path, partial(dict.update, **{name: call}))
        with pytest.raises(UnsupportedModel, match=r"holds os\.system where"):
            import_network(replaced, ImportOptions())
