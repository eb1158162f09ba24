"""The trainer: data, fitting, evaluation, gate and publication.

from mlpserve_trainer import TrainSettings, load_recipe, train

outcome = train(TrainSettings(recipe=load_recipe("quick", dataset="digits")))
"""

from mlpserve_trainer.errors import (
    DataError,
    DatasetUnavailable,
    TrainerError,
    TrainingDiverged,
    UsageError,
)

try:
    from mlpserve_trainer.recipe import Recipe, load_recipe, recipe_names
    from mlpserve_trainer.release.gate import Rules
    from mlpserve_trainer.training import Outcome, TrainSettings, train
except ModuleNotFoundError as error:
    raise ImportError(
        f"the trainer needs the package {error.name}: install the extra trainer, "
        "in a checkout: pip install '.[trainer]'"
    ) from error

__all__ = [
    "DataError",
    "DatasetUnavailable",
    "Outcome",
    "Recipe",
    "Rules",
    "TrainSettings",
    "TrainerError",
    "TrainingDiverged",
    "UsageError",
    "load_recipe",
    "recipe_names",
    "train",
]
