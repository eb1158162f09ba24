"""Reports that correct an answer, as a server records them."""

import hashlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.store.evidence.records import ReportRecord

__all__ = ["correction", "image"]

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


def image(number: int) -> npt.NDArray[np.float32]:
    """Return the image of this number, 4 by 4, as pixels."""
    pixels = np.random.default_rng(abs(number)).integers(0, 256, (4, 4))
    if number < 0:
        pixels = 255 - pixels
    return (pixels / 255).astype(np.float32)
