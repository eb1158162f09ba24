"""One training run: resume, fit, save checkpoints, calibrate."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from threadpoolctl import threadpool_limits

from mlpserve_model import Network
from mlpserve_model.process.interrupts import uninterrupted
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.split import Examples, Split
from mlpserve_trainer.errors import CheckpointDamaged
from mlpserve_trainer.evaluation.calibration import (
    apply_temperature,
    calibrated_network,
    fit_temperature,
)
from mlpserve_trainer.evaluation.scores import logits_of
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.fitting.fit import Epoch, fit
from mlpserve_trainer.fitting.progress import Watch
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["calibrated", "fitted", "network_for"]

logger = logging.getLogger(__name__)


def network_for(recipe: Recipe, data: Dataset) -> Network:
    """Return the network of a recipe, with the data's number of inputs and classes."""
    sizes = (math.prod(data.input_shape), *recipe.hidden, len(data.class_names))
    return Network(sizes, recipe.layer_activations)


def fitted(
    network: Network,
    recipe: Recipe,
    parts: Split,
    seed: int,
    watch: Watch,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> Epoch:
    """Fit a network, save each epoch if there is a checkpoint, and return the last one.

    The weights take real inputs as they are, although the training standardises them. Raises
    TrainerError when the training diverges or the checkpoint cannot be read.
    """
    scaling, parts = parts.scaling, _standardised(parts)
    state = _resumed(checkpoint, network, recipe, seed) if checkpoint and resume else None
    # One BLAS thread in each process is faster, and makes the weights independent of the number of
    # cores (docs/notes/training.md).
    with threadpool_limits(1, user_api="blas"), _resume_hint(checkpoint):
        epochs = fit(network, recipe, parts.training, parts.validation, seed, state)
        *_, last = watch(checkpoint.saving(epochs) if checkpoint else epochs, recipe.epochs)
    last = calibrated(recipe, last, parts.validation)
    return replace(last, weights=scaling.fold(last.weights)) if scaling else last


def _resumed(
    checkpoint: Checkpoint, network: Network, recipe: Recipe, seed: int
) -> TrainingState | None:
    """Return the state that was saved of this training, None if there is none."""
    state = checkpoint.load()
    if state is None:
        logger.info(
            "no checkpoint of this training (other data, recipe or seed): "
            "starting from the beginning"
        )
        return None
    first = TrainingState.initial(network, recipe, seed)
    if not state.continues(first) or state.epochs > recipe.epochs:
        raise CheckpointDamaged(
            f"checkpoint {checkpoint.path} is not one of this training, remove it"
        )
    logger.info("resuming from a checkpoint", extra={"epoch": state.epochs})
    return state


def _standardised(parts: Split) -> Split:
    if parts.scaling is None:
        return parts
    training, validation = (
        replace(examples, inputs=parts.scaling.apply(examples.inputs))
        for examples in (parts.training, parts.validation)
    )
    return replace(parts, training=training, validation=validation)


@contextmanager
def _resume_hint(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Let an interruption say how to resume, if an epoch was saved."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        with uninterrupted():
            saved = checkpoint.load() if checkpoint else None
        if saved is None:
            raise
        hint = f"the same command with --resume continues after epoch {saved.epochs}"
        raise KeyboardInterrupt(hint) from interrupt


def calibrated(recipe: Recipe, last: Epoch, validation: Examples) -> Epoch:
    """Return the epoch with a temperature, fitted on validation rows, folded into its weights."""
    if recipe.calibration == "none":
        return last
    logits = logits_of(last.network, last.weights, validation)
    temperature = fit_temperature(logits, validation.labels)
    return replace(
        last,
        network=calibrated_network(last.network),
        weights=apply_temperature(last.weights, temperature),
        temperature=temperature,
    )
