"""What would keep a version from being published, checked before its training."""

import os
from datetime import UTC, datetime
from pathlib import Path

from mlpserve_model import (
    CHAMPION,
    CorruptVersion,
    Draft,
    FileInfo,
    Store,
    StoreBusy,
    StoreError,
    Verdict,
    VersionNotFound,
)
from mlpserve_model.format.manifest import GOLDEN_FILE, MAX_BYTES, MODEL_FILE, encode_manifest
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.errors import UsageError
from mlpserve_trainer.release.gate import Rules, same_signature
from mlpserve_trainer.release.publish import golden_rows

__all__ = ["check_limits", "check_signature", "check_writable"]

# Bytes of a manifest for what is known after the training: metrics, reasons, other files.
RESERVED = 2**14


def check_writable(store: Store) -> None:
    """Raise UsageError unless versions can be written to a folder as it is now.

    A folder that is not there is not made: a training that is broken off leaves none.

    Raises StoreBusy, and StoreError for an object store, whose faults may pass.
    """
    if isinstance(store.root, Path) and not os.path.lexists(store.folder):
        above = next(path for path in store.folder.parents if os.path.lexists(path))
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            reason = "permission denied or read-only" if above.is_dir() else "it is not a folder"
            raise UsageError(f"nothing was trained: cannot write to {above}: {reason}")
        return
    try:
        with store.lock():
            store.aliases()
            # The lock's file may be writable in a folder that is not.
            if isinstance(store.root, Path) and not os.access(store.folder, os.W_OK):
                raise StoreError(f"cannot write to {store}: permission denied or read-only")
    except StoreBusy:
        raise
    except StoreError as error:
        if isinstance(store.root, Path):
            raise UsageError(f"nothing was trained: {error}") from error
        raise


def check_signature(store: Store, draft: Draft, rules: Rules) -> None:
    """Raise UsageError if the gate would reject the draft for its inputs or classes.

    A damaged champion stops nothing: the gate does not compare with it either.
    """
    champion = store.aliases().get(CHAMPION)
    if champion is None or rules.force_reason is not None:
        return
    try:
        signature = store.load(champion).manifest.signature
    except (CorruptVersion, VersionNotFound):
        return
    check = same_signature(champion, signature, draft.signature, rules.allow_signature_change)
    if not check.passed:
        raise UsageError(f"nothing was trained: {check.reason}")


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
