"""Limits of the model format, checked before a training rather than when it is published."""

from datetime import UTC, datetime

from mlpserve_model import CorruptVersion, Draft, FileInfo, Verdict
from mlpserve_model.format.manifest import GOLDEN_FILE, MAX_BYTES, MODEL_FILE, encode_manifest
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.release.publish import golden_rows

__all__ = ["check_limits"]

# Bytes of a manifest for what is known after the training: metrics, reasons, other files.
RESERVED = 2**14


def check_limits(draft: Draft, holdout_labels: Labels) -> None:
    """Raise UsageError if no reader would accept a version of this draft, whatever its weights."""
    empty = FileInfo("0" * 64, 0)
    try:
        document = encode_manifest(
            draft,
            Verdict("REJECTED"),
            {MODEL_FILE: empty, GOLDEN_FILE: empty},
            version=1,
            created=datetime.now(UTC),
            golden_rows=len(golden_rows(holdout_labels)),
        )
        read_manifest(document)
    except CorruptVersion as error:
        raise UsageError(f"nothing was trained, since no server could load it: {error}") from error
    size = len(document)
    if size > MAX_BYTES - RESERVED:
        raise UsageError(
            f"nothing was trained, since no server could load it: the manifest would have {size} "
            f"bytes, expected at most {MAX_BYTES - RESERVED}; use fewer or shorter class names"
        )
