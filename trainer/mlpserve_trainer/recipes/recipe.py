"""Recipes: every option of a training, as data.

A recipe is a small TOML file; the shipped ones are beside this module. Each key is also a flag of
the command, which takes precedence.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from mlpserve_model.nn.activations import HIDDEN
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.recipes.keys import (
    AMOUNT,
    COUNT,
    FRACTION,
    MAX_COUNT,
    PARSERS,
    RATE,
    check,
    choice,
    fraction,
    not_negative,
    number,
    positive,
    suggest,
    typed,
)

__all__ = ["Recipe", "RecipeKey", "recipe_keys"]

# Identity outputs are no probabilities, which the report and the gate judge.
OUTPUTS = ("softmax", "sigmoid")


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
    hidden: tuple[int, ...] = number(
        (128,),
        "units of each hidden layer, as 128 or 512,512",
        lambda v: all(map(positive, v)),
        f"sizes above 0, at most {MAX_COUNT}",
    )
    hidden_activation: str = choice("relu", "activation function of the hidden layers", *HIDDEN)
    output_activation: str = choice("softmax", "activation function of the last layer", *OUTPUTS)
    activations: tuple[str, ...] = number(
        (),
        "activation function of each layer, as relu,tanh,softmax, in place of the two above",
        lambda v: not v or (set(v[:-1]) <= set(HIDDEN) and v[-1] in OUTPUTS),
        f"{', '.join(HIDDEN)} for hidden layers, {' or '.join(OUTPUTS)} for the last",
    )
    loss: str = choice("cross_entropy", "loss to minimise", "cross_entropy", "mean_squared_error")
    initialisation: str = choice("he", "distribution of the initial weights", "he", "xavier")
    optimizer: str = choice(
        "adam", "rule that updates the weights", "adam", "adamw", "nesterov", "sgd"
    )
    learning_rate: float = number(
        0.002, "largest learning rate; the schedule lowers it", positive, RATE
    )
    momentum: float = number(0.0, "momentum of the sgd and nesterov optimizers", fraction, FRACTION)
    schedule: str = choice(
        *("linear", "how the learning rate changes during the training"),
        *("constant", "linear", "cosine", "one_cycle", "step"),
    )
    warmup: float = number(
        0.0, "fraction of the training in which the learning rate rises from 0", fraction, FRACTION
    )
    batch_size: int = number(128, "rows in one training step", positive, COUNT)
    epochs: int = number(10, "passes over the training data", positive, COUNT)
    min_steps: int = number(
        0,
        "minimum number of training steps, by more passes over small data in each epoch; "
        "0 if only epochs is set",
        *(not_negative, f"0 or more, at most {MAX_COUNT}"),
    )
    weight_decay: float = number(
        0.0, "strength of the decay of the weights towards 0", not_negative, AMOUNT
    )
    dropout: float = number(
        0.0, "fraction of the hidden units dropped in each step", fraction, FRACTION
    )
    clip_norm: float = number(
        0.0, "maximum norm of the gradient; 0 for no limit", not_negative, AMOUNT
    )
    averaging: float = number(
        0.0,
        "decay of the running average of the weights in each step; 0 for no averaging",
        fraction,
        FRACTION,
    )
    label_smoothing: float = number(
        0.0, "fraction of each target spread over all classes", fraction, FRACTION
    )
    shift: float = number(
        0.0, "maximum shift of an image, in 28ths of its shorter side", not_negative, AMOUNT
    )
    rotation: float = number(0.0, "maximum rotation of an image, in degrees", not_negative, AMOUNT)
    scaling: float = number(
        0.0, "maximum fraction by which an image grows or shrinks", fraction, FRACTION
    )
    shear: float = number(
        0.0, "maximum shear of an image, in pixels per pixel", not_negative, AMOUNT
    )
    elastic: float = number(
        0.0,
        "typical elastic displacement of a pixel, in 28ths of the image's shorter side",
        not_negative,
        AMOUNT,
    )
    calibration: str = choice(
        *("temperature", "scaling of the probabilities, folded into the last layer"),
        *("none", "temperature"),
    )
    patience: int = number(
        0,
        "epochs without a better validation accuracy that end the training; 0 for no limit",
        *(not_negative, f"0 or more, at most {MAX_COUNT}"),
    )
    validation_fraction: float = number(
        0.05, "fraction of the training data kept for validation", lambda v: 0 < v < 1, FRACTION
    )

    @property
    def augments(self) -> bool:
        """Whether images are distorted before they are trained on."""
        return any((self.shift, self.rotation, self.scaling, self.shear, self.elastic))

    def __post_init__(self) -> None:
        for key in fields(self):
            check(key, getattr(self, key.name))
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
                raise UsageError(f"unknown recipe key {name!r}: {suggest(name, keys)}")
        exact = {"min_steps": 0} if "epochs" in values else {}
        changes = {name: typed(keys[name], value) for name, value in values.items()}
        return replace(self, **(exact | changes))

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
