"""Loads recipes: the shipped ones by name, others by the path of their file."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.input_files import read_toml
from mlpserve_trainer.recipes.keys import suggest
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["load_recipe", "recipe_names"]


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
        near = suggest(name, recipe_names())
        raise UsageError(f"unknown recipe {name!r}: {near} (a file has .toml at the end)")
    file = resources.files("mlpserve_trainer").joinpath(f"recipes/{name}.toml")
    return tomllib.loads(file.read_text("utf-8"))
