"""Checkpoints: the state of a training after each epoch, so that a long one can go on.

A checkpoint is named for what the training is: model, recipe, seed, data and versions. Another
training never finds it, and nothing has to be compared when it is read.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlpserve_model import Manifest
from mlpserve_trainer.errors import CheckpointDamaged
from mlpserve_trainer.fitting.fit import Epoch
from mlpserve_trainer.fitting.state import State

__all__ = ["Checkpoint"]

logger = logging.getLogger(__name__)

_VECTORS = ("weights", "memory", "average", "best")
_CURVES = ("losses", "accuracies", "rates")


@dataclass(frozen=True)
class Checkpoint:
    """The place of one training's checkpoint; the file is there once an epoch is done."""

    path: Path

    @classmethod
    def of(cls, folder: Path, draft: Manifest) -> "Checkpoint":
        """Return the place for the training that this draft describes."""
        facts = [draft.dataset.digest, draft.dataset.split, dict(draft.recipe), draft.seed]
        text = json.dumps([*facts, dict(draft.libraries)], sort_keys=True)
        return cls(folder / f"{draft.model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz")

    def save(self, state: State) -> None:
        """Replace the file in one step; raises OSError when the folder cannot be written."""
        arrays = {name: getattr(state, name) for name in _VECTORS + _CURVES}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.savez(file, **{k: v for k, v in arrays.items() if v is not None})
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)

    def load(self) -> State | None:
        """Return the state to go on from, None where there is no checkpoint.

        Raises CheckpointDamaged when the file cannot be read.
        """
        try:
            # Opened here: NumPy leaves the file of a damaged archive open.
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = dict(file)
            curves = {name: arrays.pop(name).tolist() for name in _CURVES}
            return State(**arrays, **curves)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointDamaged(
                f"checkpoint {self.path} is damaged, remove it: {error}"
            ) from error

    def remove(self) -> None:
        """Remove the file where there is one: its training is over."""
        with suppress(OSError):
            self.path.unlink()

    def saving(self, epochs: Iterator[Epoch]) -> Iterator[Epoch]:
        """Save the state of each epoch on its way through.

        A folder that cannot be written costs the checkpoints, with a warning, not the training.
        """
        writable = True
        for epoch in epochs:
            try:
                if writable:
                    self.save(epoch.state)
            except OSError as error:
                logger.warning("training without checkpoints: %s", error)
                writable = False
            yield epoch
