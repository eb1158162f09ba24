"""How a recipe's keys are declared, read and checked."""

import difflib
import reprlib
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from dataclasses import Field, field
from typing import Any

from mlpserve_trainer.errors import UsageError

__all__ = [
    "AMOUNT",
    "COUNT",
    "FRACTION",
    "MAX_COUNT",
    "PARSERS",
    "RATE",
    "check",
    "choice",
    "fraction",
    "not_negative",
    "number",
    "positive",
    "suggest",
    "typed",
]

# Below the largest float32, in which the weights are stored.
MAX_FLOAT = 1e30
MAX_COUNT = 2**31 - 1

RATE = f"a number above 0, at most {MAX_FLOAT:g}"
FRACTION, AMOUNT = "from 0 to 1", f"0 or more, at most {MAX_FLOAT:g}"
COUNT = f"a whole number above 0, at most {MAX_COUNT}"


def choice(default: str, text: str, *choices: str) -> Any:
    """Declare a key that is one of several words."""
    expected = f"one of {', '.join(choices)}"
    return field(default=default, metadata={"help": text, "choices": choices, "expected": expected})


def number(default: Any, text: str, fits: Callable[[Any], bool], expected: str) -> Any:
    """Declare a key whose value has to fit; `expected` says in errors what does."""
    return field(default=default, metadata={"help": text, "fits": fits, "expected": expected})


def positive(value: float) -> bool:
    """Return True if the value is above 0 and can be computed with."""
    return 0 < value <= (MAX_COUNT if isinstance(value, int) else MAX_FLOAT)


def not_negative(value: float) -> bool:
    """Return True if the value is 0 or positive."""
    return value == 0 or positive(value)


def fraction(value: float) -> bool:
    """Return True if the value is from 0 to below 1."""
    return 0 <= value < 1


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like this one, or all of them, as a hint."""
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


def typed(key: Field[Any], value: Any) -> Any:
    """Return the value in the type of the key: TOML has 1 for 1.0, and lists for tuples.

    Raises:
        UsageError: The value has another type.

    """
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


def check(key: Field[Any], value: Any) -> None:
    """Raise UsageError if the value is not allowed for the key."""
    expected = key.metadata.get("expected")
    if expected is None:
        return
    choices = key.metadata.get("choices")
    if not (value in choices if choices else key.metadata["fits"](value)):
        raise UsageError(f"recipe key {key.name}: expected {expected}, got {value!r}")
