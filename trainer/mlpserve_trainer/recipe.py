"""Recipes: every knob of the training, as data.

A recipe is a small TOML file; the shipped ones lie in `recipes/`. Each key can also be given
as a flag, which wins.
"""

import difflib
import tomllib
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from mlpserve_trainer.errors import UsageError

__all__ = ["Knob", "Recipe", "load_recipe", "recipe_knobs", "recipe_names"]


def _choice(default: str, text: str, *choices: str) -> Any:
    expected = f"one of {', '.join(choices)}"
    return field(default=default, metadata={"help": text, "choices": choices, "expected": expected})


def _knob(default: Any, text: str, fits: Callable[[Any], bool], expected: str) -> Any:
    return field(default=default, metadata={"help": text, "fits": fits, "expected": expected})


# Not far below what float32 holds, which the weights are.
MAX_FLOAT = 1e30
MAX_COUNT = 2**31 - 1


def _positive(value: float) -> bool:
    return 0 < value <= (MAX_COUNT if isinstance(value, int) else MAX_FLOAT)


def _not_negative(value: float) -> bool:
    return value == 0 or _positive(value)


def _share(value: float) -> bool:
    return 0 <= value < 1


RATE = f"a number above 0, at most {MAX_FLOAT:g}"
SHARE, AMOUNT = "from 0 to 1", f"0 or more, at most {MAX_FLOAT:g}"
COUNT = f"a whole number above 0, at most {MAX_COUNT}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train on, and how. Each field is a key of the file and a flag of the command.

    Raises UsageError for a value that is not allowed.
    """

    name: str = "custom"
    description: str = ""
    dataset: str = field(default="auto", metadata={"help": "data set, see `datasets`"})
    hidden: tuple[int, ...] = _knob(
        (128,),
        "hidden layers, as 128 or 512,512",
        lambda v: all(map(_positive, v)),
        f"sizes above 0, at most {MAX_COUNT}",
    )
    hidden_activation: str = _choice(
        "relu", "activation of the hidden layers", "relu", "sigmoid", "tanh"
    )
    output_activation: str = _choice(
        "softmax", "activation of the last layer", "softmax", "sigmoid"
    )
    loss: str = _choice("cross_entropy", "loss to minimise", "cross_entropy", "mean_squared_error")
    initialisation: str = _choice("he", "initial weights", "he", "xavier")
    optimizer: str = _choice("adam", "optimizer", "adam", "adamw", "nesterov", "sgd")
    learning_rate: float = _knob(0.002, "learning rate of the first step", _positive, RATE)
    momentum: float = _knob(0.0, "of sgd and nesterov", _share, SHARE)
    schedule: str = _choice(
        *("linear", "how the learning rate changes"),
        *("constant", "linear", "cosine", "one_cycle", "step"),
    )
    warmup: float = _knob(0.0, "share of the training in which the rate rises", _share, SHARE)
    batch_size: int = _knob(128, "rows in one step", _positive, COUNT)
    epochs: int = _knob(10, "passes over the data", _positive, COUNT)
    weight_decay: float = _knob(0.0, "pull of the weights towards 0", _not_negative, AMOUNT)
    dropout: float = _knob(0.0, "share of hidden units silenced in a step", _share, SHARE)
    clip_norm: float = _knob(
        0.0, "longest gradient let through; 0 lets all through", _not_negative, AMOUNT
    )
    averaging: float = _knob(
        0.0, "share that the running average of the weights keeps at a step", _share, SHARE
    )
    label_smoothing: float = _knob(
        0.0, "share of each target spread over all classes", _share, SHARE
    )
    shift: float = _knob(0.0, "pixels a picture is moved by at most, of 28", _not_negative, AMOUNT)
    rotation: float = _knob(0.0, "degrees it is turned by at most", _not_negative, AMOUNT)
    scaling: float = _knob(0.0, "share it grows or shrinks by at most", _share, SHARE)
    shear: float = _knob(0.0, "pixels a pixel that it slants by at most", _not_negative, AMOUNT)
    elastic: float = _knob(0.0, "pixels it is bent by on average, of 28", _not_negative, AMOUNT)
    calibration: str = _choice(
        "none", "temperature scaling folded into the last layer", "none", "temperature"
    )
    patience: int = _knob(
        0,
        "epochs without a better validation accuracy that end it; 0: none",
        *(_not_negative, f"0 or more, at most {MAX_COUNT}"),
    )
    validation_fraction: float = _knob(
        0.05, "share of the training data kept for validation", lambda v: 0 < v < 1, SHARE
    )

    @property
    def augments(self) -> bool:
        """Whether pictures are warped before they are trained on."""
        return any((self.shift, self.rotation, self.scaling, self.shear, self.elastic))

    def __post_init__(self) -> None:
        for knob in fields(self):
            _check(knob, getattr(self, knob.name))
        if self.calibration == "temperature" and self.output_activation != "softmax":
            raise UsageError("recipe key calibration: temperature needs output_activation softmax")

    def override(self, values: Mapping[str, Any]) -> "Recipe":
        """Return this recipe with some keys changed.

        Raises UsageError for an unknown key, naming the nearest, and for a value that does not fit.
        """
        knobs = {knob.name: knob for knob in fields(self)}
        for key in values:
            if key not in knobs:
                raise UsageError(f"unknown recipe key {key!r}: {_suggest(key, knobs)}")
        return replace(self, **{key: _typed(knobs[key], value) for key, value in values.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return every key and value, as they go into the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Knob:
    """A recipe key that can be a flag: what it is for, and how its text is read."""

    name: str
    help: str
    choices: tuple[str, ...]
    parse: Callable[[str], Any]


def recipe_knobs() -> tuple[Knob, ...]:
    """List the keys of a recipe, but for its name and description."""
    return tuple(
        Knob(
            knob.name,
            knob.metadata["help"],
            knob.metadata.get("choices", ()),
            _parse_sizes if knob.name == "hidden" else type(knob.default),
        )
        for knob in fields(Recipe)
        if knob.metadata
    )


def recipe_names() -> tuple[str, ...]:
    """Name the shipped recipes."""
    files = resources.files("mlpserve_trainer").joinpath("recipes").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_recipe(name: str = "quick", **changes: Any) -> Recipe:
    """Load a shipped recipe by name, or any .toml file by its path, and change some keys.

    Raises UsageError for no such recipe, no TOML, an unknown key or a bad value.
    """
    try:
        values = tomllib.loads(_read(name))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"recipe {name}: {error}") from error
    short = Path(name).stem
    return Recipe(name=short).override(values).override(changes)


def _read(name: str) -> str:
    if name.endswith(".toml"):
        return Path(name).read_text("utf-8")
    if name not in recipe_names():
        raise UsageError(f"unknown recipe {name!r}: {_suggest(name, recipe_names())}, or a file")
    return resources.files("mlpserve_trainer").joinpath(f"recipes/{name}.toml").read_text("utf-8")


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _parse_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no list of sizes: expected 128 or 512,512") from error


def _typed(knob: Field[Any], value: Any) -> Any:
    """Return the value in the type of the knob: TOML writes 1 for 1.0, and lists for tuples."""
    kind = type(knob.default)
    if kind is tuple and isinstance(value, list | tuple):
        value = tuple(value)
    elif kind is float and type(value) is int:
        value = float(value)
    sizes = value if kind is tuple and isinstance(value, tuple) else ()
    if type(value) is not kind or any(type(size) is not int for size in sizes):
        raise UsageError(f"recipe key {knob.name}: expected {kind.__name__}, got {value!r}")
    return value


def _check(knob: Field[Any], value: Any) -> None:
    expected = knob.metadata.get("expected")
    if expected is None:
        return
    choices = knob.metadata.get("choices")
    if not (value in choices if choices else knob.metadata["fits"](value)):
        raise UsageError(f"recipe key {knob.name}: expected {expected}, got {value!r}")
