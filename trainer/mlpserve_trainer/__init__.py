"""The trainer: data, fitting, evaluation, gate and publication.

from mlpserve_trainer import TrainSettings, load_recipe, train

outcome = train(TrainSettings(recipe=load_recipe("quick", dataset="digits")))

from mlpserve_trainer import MlpClassifier, publish

publish("models", MlpClassifier().fit(X, y), X_holdout, y_holdout, model="flowers")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlpserve_trainer.errors import (
    DataError,
    DatasetUnavailable,
    TrainerError,
    TrainingDiverged,
    UsageError,
)

try:
    from mlpserve_trainer.recipes.loading import load_recipe, recipe_names
    from mlpserve_trainer.recipes.recipe import Recipe
    from mlpserve_trainer.release.gate import Rules
    from mlpserve_trainer.training.pipeline import Outcome, TrainSettings, train
except ModuleNotFoundError as error:
    raise ImportError(
        f"the trainer needs the package {error.name}: install the extra trainer, "
        "in a checkout: pip install '.[trainer]'"
    ) from error

if TYPE_CHECKING:
    from mlpserve_trainer.estimator.classifier import MlpClassifier
    from mlpserve_trainer.release.estimators import publish

__all__ = [
    "DataError",
    "DatasetUnavailable",
    "MlpClassifier",
    "Outcome",
    "Recipe",
    "Rules",
    "TrainSettings",
    "TrainerError",
    "TrainingDiverged",
    "UsageError",
    "load_recipe",
    "publish",
    "recipe_names",
    "train",
]

# Imported when they are asked for: scikit-learn takes a second that no command needs for them.
_LAZY = {"MlpClassifier": "estimator.classifier", "publish": "release.estimators"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"mlpserve_trainer.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
