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
    missing_package,
)

if TYPE_CHECKING:
    from mlpserve_trainer.estimator.classifier import MlpClassifier
    from mlpserve_trainer.recipes.loading import load_recipe, recipe_names
    from mlpserve_trainer.recipes.recipe import Recipe
    from mlpserve_trainer.release.estimators import publish
    from mlpserve_trainer.release.gate import Rules
    from mlpserve_trainer.training.pipeline import Outcome, TrainSettings, train

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

# Imported when they are used: scikit-learn takes a second that no command needs, and where packages
# are missing the command says so in one line.
_LAZY = {
    "MlpClassifier": "estimator.classifier",
    "Outcome": "training.pipeline",
    "Recipe": "recipes.recipe",
    "Rules": "release.gate",
    "TrainSettings": "training.pipeline",
    "load_recipe": "recipes.loading",
    "publish": "release.estimators",
    "recipe_names": "recipes.loading",
    "train": "training.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"mlpserve_trainer.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(missing_package(error)) from error
