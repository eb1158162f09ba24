"""Recipes: every option of a training, as data.

A recipe is a small TOML file; the shipped ones are in `recipes/`. Each key is also a flag of the
command, which takes precedence.
"""

import difflib
import reprlib
import tomllib
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from mlpserve_model.nn.activations import HIDDEN
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.input_files import read_toml

__all__ = ["Recipe", "RecipeKey", "load_recipe", "recipe_keys", "recipe_names"]


def _choice(default: str, text: str, *choices: str) -> Any:
    expected = f"one of {', '.join(choices)}"
    return field(default=default, metadata={"help": text, "choices": choices, "expected": expected})


def _number(default: Any, text: str, fits: Callable[[Any], bool], expected: str) -> Any:
    return field(default=default, metadata={"help": text, "fits": fits, "expected": expected})


# Below the largest float32, in which the weights are stored.
MAX_FLOAT = 1e30
MAX_COUNT = 2**31 - 1


def _positive(value: float) -> bool:
    return 0 < value <= (MAX_COUNT if isinstance(value, int) else MAX_FLOAT)


def _not_negative(value: float) -> bool:
    return value == 0 or _positive(value)


def _fraction(value: float) -> bool:
    return 0 <= value < 1


# Identity outputs are no probabilities, which the report and the gate judge.
OUTPUTS = ("softmax", "sigmoid")
RATE = f"a number above 0, at most {MAX_FLOAT:g}"
FRACTION, AMOUNT = "from 0 to 1", f"0 or more, at most {MAX_FLOAT:g}"
COUNT = f"a whole number above 0, at most {MAX_COUNT}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train on, and how: each field is a key of the file and a flag of the command.

    Raises UsageError for a value that is not allowed.
    """

    name: str = "custom"
    description: str = ""
    dataset: str = field(
        default="auto", metadata={"help": "data set to train on; `datasets` lists them"}
    )
    hidden: tuple[int, ...] = _number(
        (128,),
        "units of each hidden layer, as 128 or 512,512",
        lambda v: all(map(_positive, v)),
        f"sizes above 0, at most {MAX_COUNT}",
    )
    hidden_activation: str = _choice("relu", "activation function of the hidden layers", *HIDDEN)
    output_activation: str = _choice("softmax", "activation function of the last layer", *OUTPUTS)
    activations: tuple[str, ...] = _number(
        (),
        "activation function of each layer, as relu,tanh,softmax, in place of the two above",
        lambda v: not v or (set(v[:-1]) <= set(HIDDEN) and v[-1] in OUTPUTS),
        f"{', '.join(HIDDEN)} for hidden layers, {' or '.join(OUTPUTS)} for the last",
    )
    loss: str = _choice("cross_entropy", "loss to minimise", "cross_entropy", "mean_squared_error")
    initialisation: str = _choice("he", "distribution of the initial weights", "he", "xavier")
    optimizer: str = _choice(
        "adam", "rule that updates the weights", "adam", "adamw", "nesterov", "sgd"
    )
    learning_rate: float = _number(
        0.002, "largest learning rate; the schedule lowers it", _positive, RATE
    )
    momentum: float = _number(
        0.0, "momentum of the sgd and nesterov optimizers", _fraction, FRACTION
    )
    schedule: str = _choice(
        *("linear", "how the learning rate changes during the training"),
        *("constant", "linear", "cosine", "one_cycle", "step"),
    )
    warmup: float = _number(
        0.0, "fraction of the training in which the learning rate rises from 0", _fraction, FRACTION
    )
    batch_size: int = _number(128, "rows in one training step", _positive, COUNT)
    epochs: int = _number(10, "passes over the training data", _positive, COUNT)
    min_steps: int = _number(
        0,
        "minimum number of training steps, by more passes over small data in each epoch; "
        "0 if only epochs is set",
        *(_not_negative, f"0 or more, at most {MAX_COUNT}"),
    )
    weight_decay: float = _number(
        0.0, "strength of the decay of the weights towards 0", _not_negative, AMOUNT
    )
    dropout: float = _number(
        0.0, "fraction of the hidden units dropped in each step", _fraction, FRACTION
    )
    clip_norm: float = _number(
        0.0, "maximum norm of the gradient; 0 for no limit", _not_negative, AMOUNT
    )
    averaging: float = _number(
        0.0,
        "decay of the running average of the weights in each step; 0 for no averaging",
        _fraction,
        FRACTION,
    )
    label_smoothing: float = _number(
        0.0, "fraction of each target spread over all classes", _fraction, FRACTION
    )
    shift: float = _number(
        0.0, "maximum shift of an image, in 28ths of its shorter side", _not_negative, AMOUNT
    )
    rotation: float = _number(
        0.0, "maximum rotation of an image, in degrees", _not_negative, AMOUNT
    )
    scaling: float = _number(
        0.0, "maximum fraction by which an image grows or shrinks", _fraction, FRACTION
    )
    shear: float = _number(
        0.0, "maximum shear of an image, in pixels per pixel", _not_negative, AMOUNT
    )
    elastic: float = _number(
        0.0,
        "typical elastic displacement of a pixel, in 28ths of the image's shorter side",
        _not_negative,
        AMOUNT,
    )
    calibration: str = _choice(
        *("temperature", "scaling of the probabilities, folded into the last layer"),
        *("none", "temperature"),
    )
    patience: int = _number(
        0,
        "epochs without a better validation accuracy that end the training; 0 for no limit",
        *(_not_negative, f"0 or more, at most {MAX_COUNT}"),
    )
    validation_fraction: float = _number(
        0.05, "fraction of the training data kept for validation", lambda v: 0 < v < 1, FRACTION
    )

    @property
    def augments(self) -> bool:
        """Whether images are distorted before they are trained on."""
        return any((self.shift, self.rotation, self.scaling, self.shear, self.elastic))

    def __post_init__(self) -> None:
        for key in fields(self):
            _check(key, getattr(self, key.name))
        layers = len(self.hidden) + 1
        if self.activations and len(self.activations) != layers:
            raise UsageError(
                f"recipe key activations: expected {layers}, one for each hidden layer and one "
                f"for the last, got {len(self.activations)}: {', '.join(self.activations)}"
            )

    @property
    def layer_activations(self) -> tuple[str, ...]:
        """The activation of each layer."""
        uniform = (*(self.hidden_activation for _ in self.hidden), self.output_activation)
        return self.activations or uniform

    def override(self, values: Mapping[str, Any]) -> "Recipe":
        """Return this recipe with some keys changed.

        A recipe whose `epochs` are changed has no minimum of steps, unless that is given too: it
        passes over the data as often as it says.

        Raises UsageError for an unknown key, suggesting a similar one, and for an invalid value.
        """
        keys = {key.name: key for key in fields(self)}
        for name in values:
            if name not in keys:
                raise UsageError(f"unknown recipe key {name!r}: {_suggest(name, keys)}")
        exact = {"min_steps": 0} if "epochs" in values else {}
        typed = {name: _typed(keys[name], value) for name, value in values.items()}
        return replace(self, **(exact | typed))

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> "Recipe":
        """Return the recipe that a manifest records; raises UsageError for an unknown key.

        Releases whose recipes lack a key trained without what it asks for.
        """
        return cls(calibration="none").override(values)

    def as_dict(self) -> dict[str, Any]:
        """Return every key and value, as the manifest records them."""
        return asdict(self)


@dataclass(frozen=True)
class RecipeKey:
    """A recipe key that is also a flag.

    Attributes:
        name: The key.
        help: What it means.
        choices: The allowed values, if they can be listed.
        parse: Converts the text of the flag to a value.
    """

    name: str
    help: str
    choices: tuple[str, ...]
    parse: Callable[[str], Any]


def recipe_keys() -> tuple[RecipeKey, ...]:
    """Return the keys of a recipe without its name and description."""
    return tuple(
        RecipeKey(
            key.name,
            key.metadata["help"],
            key.metadata.get("choices", ()),
            PARSERS.get(key.name, type(key.default)),
        )
        for key in fields(Recipe)
        if key.metadata
    )


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    files = resources.files("mlpserve_trainer").joinpath("recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_recipe(name: str = "quick", **changes: Any) -> Recipe:
    """Load a shipped recipe by name, or any .toml file by its path, and change some keys.

    Raises UsageError for an unknown recipe, a file that is not TOML, an unknown key or an invalid
    value.
    """
    short = Path(name).stem
    return Recipe(name=short).override(_read(name)).override(changes)


def _read(name: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        return read_toml("recipe", Path(name))
    if name not in recipe_names():
        near = _suggest(name, recipe_names())
        raise UsageError(f"unknown recipe {name!r}: {near} (a file has .toml at the end)")
    file = resources.files("mlpserve_trainer").joinpath(f"recipes/{name}.toml")
    return tomllib.loads(file.read_text("utf-8"))


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def _parse_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise ArgumentTypeError(f"invalid layer sizes {text!r}: expected 128 or 512,512") from error


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


PARSERS: dict[str, Callable[[str], Any]] = {"hidden": _parse_sizes, "activations": _parse_names}
# Of what the elements of a key's tuple are.
ELEMENTS = {"hidden": int, "activations": str}


def _typed(key: Field[Any], value: Any) -> Any:
    """Return the value in the type of the key: TOML has 1 for 1.0, and lists for tuples."""
    kind = type(key.default)
    if kind is tuple and isinstance(value, list | tuple):
        value = tuple(value)
    elif kind is float and type(value) is int:
        value = float(value)
    elements = value if kind is tuple and isinstance(value, tuple) else ()
    if type(value) is not kind or any(type(e) is not ELEMENTS[key.name] for e in elements):
        # Cut: repr() fails at what is nested too deep.
        got = reprlib.repr(value)
        raise UsageError(f"recipe key {key.name}: expected {kind.__name__}, got {got}")
    return value


def _check(key: Field[Any], value: Any) -> None:
    expected = key.metadata.get("expected")
    if expected is None:
        return
    choices = key.metadata.get("choices")
    if not (value in choices if choices else key.metadata["fits"](value)):
        raise UsageError(f"recipe key {key.name}: expected {expected}, got {value!r}")
