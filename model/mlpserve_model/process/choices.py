"""Choices of models, and of the version of each that answers, as flags give them."""

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mlpserve_model.format.manifest import NAME
from mlpserve_model.format.records import ALIAS
from mlpserve_model.process.arguments import MAX_VERSION, model_name

__all__ = [
    "MODEL_PATTERN",
    "VersionChoice",
    "are_several",
    "is_served",
    "models",
    "version",
    "version_choice",
]

# A model's name, or one with wildcards.
MODEL_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9._*?-]{0,62}")


@dataclass(frozen=True)
class VersionChoice:
    """The version that answers: an alias, a number, or "latest".

    Attributes:
        default: that of each model which is not in `by_model`.
        by_model: that of single models, by their names.

    """

    default: str = "champion"
    by_model: Mapping[str, str] = field(default_factory=dict)

    def of(self, model: str) -> str:
        """Return the version of a model."""
        return self.by_model.get(model, self.default)

    def __str__(self) -> str:
        """Return it as the flag takes it."""
        return ",".join([self.default, *(f"{name}={v}" for name, v in self.by_model.items())])


def models(text: str) -> tuple[str, ...]:
    """Parse names and patterns of models, separated by commas."""
    names = tuple(dict.fromkeys(_parts(text)))
    if not names:
        raise ArgumentTypeError("no model to serve")
    for name in names:
        if not MODEL_PATTERN.fullmatch(name):
            raise ArgumentTypeError(
                f"{name!r} is not a name or pattern of models: it must match "
                f"{MODEL_PATTERN.pattern}"
            )
    return names


def are_several(served: Sequence[str]) -> bool:
    """Return True unless a single name is served, so that there can be more than one model."""
    return len(served) != 1 or not NAME.fullmatch(served[0])


def is_served(model: str, served: Sequence[str]) -> bool:
    """Return True if a name or pattern among those served matches the name of a model."""
    return any(fnmatchcase(model, pattern) for pattern in served)


def version(text: str) -> str:
    """Parse the choice of a version: an alias, a number, or "latest"."""
    # By its length first: Python refuses to read very long numbers.
    number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_VERSION))
    if not (number and int(text) >= 1) and not ALIAS.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is neither a version number, nor an alias, nor latest")
    return text


def version_choice(text: str) -> VersionChoice:
    """Parse VERSION, MODEL=VERSION, or several of these, separated by commas."""
    default: str | None = None
    by_model: dict[str, str] = {}
    for part in _parts(text) or [text]:
        name, equals, chosen = part.rpartition("=")
        if not equals:
            if default is not None:
                raise ArgumentTypeError(
                    f"{default} and {part}: expected one version for all models"
                )
            default = version(part)
        elif model_name(name) in by_model:
            raise ArgumentTypeError(f"model {name} has two versions: expected one")
        else:
            by_model[name] = version(chosen)
    return VersionChoice(default or VersionChoice.default, by_model)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
