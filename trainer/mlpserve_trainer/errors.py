"""What can go wrong while training, each error written for the person who can act on it."""

__all__ = [
    "CheckpointDamaged",
    "DataError",
    "DatasetUnavailable",
    "ProcessLost",
    "TrainerError",
    "TrainingDiverged",
    "UsageError",
    "missing_package",
]


class TrainerError(Exception):
    """Base of every error that the trainer raises on purpose; nothing was published."""


class UsageError(TrainerError):
    """The request makes no sense as written: an unknown recipe key, a value out of range."""


class DataError(TrainerError):
    """The data set is there but cannot be trained on."""


class DatasetUnavailable(TrainerError):
    """The data set is not on this machine and could not be fetched."""


class CheckpointDamaged(TrainerError):
    """The checkpoint of this training cannot be read."""


class ProcessLost(TrainerError):
    """One of the processes of a training failed or was killed."""


class TrainingDiverged(TrainerError):
    """The loss stopped being a finite number."""


def missing_package(error: ModuleNotFoundError) -> str:
    """Return what to install where a package of the trainer is missing."""
    return (
        f"the trainer needs the package {error.name}: install the extra trainer, "
        "in a checkout: pip install '.[trainer]'"
    )
