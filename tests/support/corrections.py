"""Reports that correct an answer, as a server records them."""

import hashlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.store.evidence.records import ReportRecord

__all__ = ["correction"]

NOW = time.time()


def correction(
    instance: npt.NDArray[np.float32], truth: str | None, source: str = "aa", **more: Any
) -> ReportRecord:
    """Return a volunteered report of an instance; its tag follows from what is in it."""
    said = f"{truth} {source} {sorted(more.items())}".encode()
    receipt = hashlib.sha512(instance.astype("<f4").tobytes() + said).hexdigest()[:98]
    fields: dict[str, Any] = {
        "tag": receipt[-32:],
        "model": "mnist",
        "version": 1,
        "answered_at": int(NOW),
        "label": 0,
        "confidence": 0.9,
        "audit": False,
        "row_hash": receipt[:16],
        "truth": truth,
        "right": False,
        "source": source,
        "reported_at": NOW + 1,
        "instance": instance.astype(np.float32),
        "receipt": receipt,
    }
    return ReportRecord(**fields | more)
