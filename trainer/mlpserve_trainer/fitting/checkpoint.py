"""Checkpoints: the state of a training after each epoch, from which it can be resumed.

The file name is derived from model, recipe, seed, data, what 1.0 is in them, and library versions.
Another training therefore has another file, and nothing has to be compared when a checkpoint is
read.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_model import Draft
from mlpserve_model.process.interrupts import interrupted_afterwards
from mlpserve_model.process.memory import usable_memory
from mlpserve_model.store.atomic_files import Directory, UnusableFile, make_folder
from mlpserve_trainer.datasets.npz_reader import NpzReader
from mlpserve_trainer.errors import CheckpointDamaged, TrainerError
from mlpserve_trainer.fitting.fit import Epoch
from mlpserve_trainer.fitting.state import TrainingState

__all__ = ["Checkpoint"]

logger = logging.getLogger(__name__)

# Names in the file, with the attributes of the state that they hold.
_VECTORS = {
    "weights": "weights",
    "memory": "optimizer_state",
    "average": "average",
    "best": "best",
}
_CURVES = {"losses": "losses", "accuracies": "accuracies", "rates": "learning_rates"}


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training's checkpoint, which exists once an epoch is complete."""

    path: Path

    @classmethod
    def of(cls, folder: Path, draft: Draft) -> "Checkpoint":
        """Return the checkpoint of the training that the draft describes."""
        facts = [draft.dataset.digest, draft.dataset.split, dict(draft.recipe), draft.seed]
        facts += [draft.signature.input_maximum, dict(draft.libraries)]
        text = json.dumps(facts, sort_keys=True)
        return cls(folder / f"{draft.model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz")

    def save(self, state: TrainingState) -> None:
        """Replace the file atomically; raises OSError when the folder is not writable."""
        names = _VECTORS | _CURVES
        arrays = {name: getattr(state, attribute) for name, attribute in names.items()}
        make_folder(self.path.parent)
        with (
            interrupted_afterwards(),
            Directory(self.path.parent) as folder,
            folder.writing(self.path.name) as file,
        ):
            np.savez(file, **{k: v for k, v in arrays.items() if v is not None})

    def load(self) -> TrainingState | None:
        """Return the state to resume from, None without a checkpoint.

        Raises CheckpointDamaged when the file cannot be read.
        """
        try:
            with Directory(self.path.parent) as folder, folder.open(self.path.name) as file:
                reader = NpzReader(file, self.path.name)
                arrays = {name: reader.array(name, usable_memory()) for name in reader.names}
            curves: Any = {a: arrays.pop(name).tolist() for name, a in _CURVES.items()}
            vectors: Any = {_VECTORS[name]: a for name, a in arrays.items()}
            return TrainingState(**vectors, **curves)
        except FileNotFoundError:
            return None
        except (TrainerError, UnusableFile, OSError, KeyError, TypeError) as error:
            raise CheckpointDamaged(
                f"checkpoint {self.path} is damaged, remove it: {error}"
            ) from error

    def remove(self) -> None:
        """Remove the file if there is one."""
        with suppress(OSError):
            self.path.unlink()

    def saving(self, epochs: Iterator[Epoch]) -> Iterator[Epoch]:
        """Save the state after each epoch, and pass the epochs through.

        If the folder is not writable, a warning is logged and the training continues.
        """
        writable = True
        for epoch in epochs:
            try:
                if writable:
                    self.save(epoch.state)
            except OSError as error:
                logger.warning("training without checkpoints", extra={"reason": str(error)})
                writable = False
            yield epoch
