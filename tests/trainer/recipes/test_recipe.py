from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mlpserve_trainer import Recipe, UsageError, load_recipe, recipe_names
from mlpserve_trainer.recipes.recipe import recipe_keys

RECIPES = resources.files("mlpserve_trainer") / "recipes"


def test_the_shipped_recipes_are_named() -> None:
    assert recipe_names() == ("accurate", "augmented", "quick", "table", "vanilla")


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_states_every_key(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text("utf-8")
    assert all(f"\n{key.name} = " in text for key in recipe_keys())
    assert load_recipe(name).description


def test_vanilla_is_the_published_network() -> None:
    recipe = load_recipe("vanilla")
    assert (recipe.dataset, recipe.hidden, recipe.epochs, recipe.batch_size) == (
        *("digits", (15,), 100, 15),
    )
    assert (recipe.hidden_activation, recipe.output_activation) == ("relu", "sigmoid")
    assert (recipe.loss, recipe.optimizer) == ("mean_squared_error", "sgd")


def test_every_key_can_be_overridden() -> None:
    changes: dict[str, Any] = {
        "dataset": "digits",
        "hidden": (20, 10),
        "hidden_activation": "tanh",
        "output_activation": "softmax",
        "activations": ("tanh", "gelu", "sigmoid"),
        "loss": "mean_squared_error",
        "initialisation": "xavier",
        "optimizer": "sgd",
        "learning_rate": 0.25,
        "momentum": 0.5,
        "schedule": "cosine",
        "warmup": 0.1,
        "batch_size": 7,
        "epochs": 3,
        "min_steps": 100,
        "weight_decay": 0.001,
        "dropout": 0.25,
        "clip_norm": 2.0,
        "averaging": 0.99,
        "label_smoothing": 0.0625,
        "shift": 2.0,
        "rotation": 10.0,
        "scaling": 0.125,
        "shear": 0.2,
        "elastic": 0.7,
        "calibration": "temperature",
        "patience": 4,
        "validation_fraction": 0.125,
    }
    recipe = load_recipe("quick", **changes)
    assert {key.name: getattr(recipe, key.name) for key in recipe_keys()} == changes
    assert recipe.name == "quick"


def test_each_layer_has_its_activation_from_one_key_or_from_the_two() -> None:
    two = load_recipe("quick", hidden=(9, 8), hidden_activation="elu", output_activation="sigmoid")
    assert two.layer_activations == ("elu", "elu", "sigmoid")
    one = load_recipe("quick", hidden=(9, 8), activations=("relu", "silu", "softmax"))
    assert one.layer_activations == ("relu", "silu", "softmax")
    assert load_recipe("quick", hidden=()).layer_activations == ("softmax",)


def test_epochs_that_are_given_are_exact_unless_the_steps_are_given_too() -> None:
    assert load_recipe("quick").min_steps > 0
    assert load_recipe("quick", epochs=3).min_steps == 0
    assert load_recipe("quick", epochs=3, min_steps=9).min_steps == 9
    assert load_recipe("quick", hidden=(9,)).min_steps == load_recipe("quick").min_steps


@pytest.mark.parametrize("name", recipe_names())
def test_probabilities_are_calibrated_unless_a_recipe_says_none(name: str) -> None:
    assert load_recipe(name).calibration == "temperature"
    assert load_recipe(name, calibration="none").calibration == "none"


def test_a_manifest_that_records_no_calibration_was_trained_without() -> None:
    values = load_recipe("quick").as_dict()
    assert Recipe.recorded(values) == load_recipe("quick")
    del values["calibration"]
    assert Recipe.recorded(values) == load_recipe("quick", calibration="none")


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 4\nlearning_rate = 1\nhidden = [9]\n")
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert (recipe.name, recipe.epochs, recipe.hidden) == ("mine", 4, (9,))
    assert isinstance(recipe.learning_rate, float)


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epohcs = 4\n")
    with pytest.raises(UsageError, match="unknown recipe key 'epohcs': did you mean 'epochs'"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'vanila': did you mean 'vanilla'"):
        load_recipe("vanila")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("hidden", (0,), "sizes above 0"),
        ("hidden", ("9",), "tuple"),
        ("hidden", 9, "tuple"),
        ("hidden_activation", "relux", "one of relu, sigmoid, tanh"),
        ("output_activation", "identity", "one of softmax, sigmoid"),
        ("activations", ("relux", "softmax"), "relu, sigmoid, tanh"),
        ("activations", ("relu", "identity"), "relu, .* softmax or sigmoid for the last"),
        ("activations", ("softmax",), "2, one for each hidden layer and one for the last, got 1"),
        ("activations", (1, 2), "tuple"),
        ("activations", "relu", "tuple"),
        ("optimizer", "lion", "one of adam, adamw, nesterov, sgd"),
        ("learning_rate", 0.0, "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("learning_rate", "fast", "float"),
        ("batch_size", 0, "a whole number above 0"),
        ("epochs", 1.5, "int"),
        ("epochs", True, "int"),
        ("label_smoothing", 1.0, "from 0 to 1"),
        ("weight_decay", -0.1, "0 or more"),
        ("elastic", float("inf"), "0 or more"),
        ("validation_fraction", 0.0, "from 0 to 1"),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(key: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=f"recipe key {key}: expected {expected}"):
        load_recipe("quick", **{key: value})


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs: 4\n")
    with pytest.raises(UsageError, match=r"mine\.toml: Expected '='"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no "):
        load_recipe(str(tmp_path / "mine.toml"))
