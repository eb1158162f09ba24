"""Limits of the model format, checked before a training rather than when it is published."""

from dataclasses import replace
from datetime import UTC, datetime

from mlpserve_model import Manifest, ModelRejected
from mlpserve_model.format.manifest import GOLDEN_FILE, MAX_BYTES, MODEL_FILE, FileInfo
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.release.publish import golden_rows

__all__ = ["check_limits"]

# Bytes of a manifest for what is known after the training: metrics, reasons, other files.
RESERVED = 2**14


def check_limits(draft: Manifest, holdout_labels: Labels) -> None:
    """Raise UsageError if no reader would accept a version of this draft, whatever its weights."""
    empty = FileInfo("0" * 64, 0)
    preview = replace(
        draft,
        version=1,
        created=datetime.now(UTC),
        files={MODEL_FILE: empty, GOLDEN_FILE: empty},
        golden_rows=len(golden_rows(holdout_labels)),
    )
    try:
        size = len(Manifest.from_json(preview.to_json()).document)
    except ModelRejected as error:
        raise UsageError(f"nothing was trained, since no server could load it: {error}") from error
    if size > MAX_BYTES - RESERVED:
        raise UsageError(
            f"nothing was trained, since no server could load it: the manifest would have {size} "
            f"bytes, expected at most {MAX_BYTES - RESERVED}; use fewer or shorter class names"
        )
