"""Receipts for answers: signed on the way out, and kept nowhere."""

import random
import secrets
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2
from mlpserve_model import Manifest
from mlpserve_model.store.evidence.receipts import FULL, RECEIPT_BYTES, ReceiptKeys, weights_of
from mlpserve_server.observability.observer import Observer

__all__ = ["ReceiptIssuer"]

_RECEIPTS = "mlpserve_receipts_total"
# The start of the field of a receipt, which has the same number in both responses.
_FIELD = prediction_pb2.PredictResponse(receipt=bytes(RECEIPT_BYTES)).SerializeToString()[
    :-RECEIPT_BYTES
]


class _Version(NamedTuple):
    """What receipts have of a version, as they have it."""

    manifest: Manifest | None = None
    labels: tuple[str, str] = ("", "")
    weights: bytes = b""

    @classmethod
    def of(cls, manifest: Manifest) -> "_Version":
        labels = manifest.model, str(manifest.version)
        return cls(manifest, labels, weights_of(manifest.digest))


class ReceiptIssuer:
    """Signs receipts; for any thread.

    Args:
        keys: returns the keys in force.
        audit_share: the share of the receipts that are drawn for the audit, at random.
        observer: what receipts are reported to.

    """

    def __init__(
        self, keys: Callable[[], ReceiptKeys], audit_share: float, observer: Observer
    ) -> None:
        self._keys = keys
        self._audit_share = audit_share
        self._observer = observer
        self._version = _Version()  # the one that answered last
        # Servers that share a key begin at different numbers.
        self._serials = map((2**32 - 1).__and__, count(secrets.randbits(32)))

    def fields(
        self,
        manifest: Manifest,
        probabilities: NDArray[np.float32],
        rows: Sequence[bytes],
    ) -> list[bytes]:
        """Return the encoded field of each row's receipt, to be put behind its response.

        Args:
            manifest: The version that answered.
            probabilities: What it answered, (rows, classes).
            rows: What their receipts have the hash of.

        """
        keys, share, version = self._keys(), self._audit_share, self._version
        if version.manifest is not manifest:
            version = self._version = _Version.of(manifest)
        labels, confidences = _highest(probabilities)
        audits = [random.random() < share for _ in labels]
        self._count(version.labels, audits)
        steps = map(_steps, confidences)
        answers = zip(audits, labels, steps, self._serials, rows, strict=False)
        signed = keys.sign_rows(
            manifest.model, manifest.version, version.weights, int(time.time()), answers
        )
        return [_FIELD + receipt for receipt in signed]

    def _count(self, version: tuple[str, str], audits: list[bool]) -> None:
        drawn = sum(audits)
        if drawn:
            self._observer.count(_RECEIPTS, *version, "audit", amount=drawn)
        if drawn < len(audits):
            self._observer.count(_RECEIPTS, *version, "plain", amount=len(audits) - drawn)


def _highest(probabilities: NDArray[np.float32]) -> tuple[list[int], list[float]]:
    """Return the label and the confidence of each row."""
    if len(probabilities) > 1:
        labels = probabilities.argmax(axis=1)
        # A fifth of the time of max(axis=1).
        return labels.tolist(), probabilities[np.arange(len(labels)), labels].tolist()
    (row,) = probabilities.tolist()  # a fifth of the time, for the caller who waits alone
    highest = max(row)
    return [row.index(highest)], [highest]


def _steps(confidence: float) -> int:
    """Return a confidence in steps of 1/65535; of imported networks it may be any number."""
    if 0 <= confidence <= 1:
        return int(confidence * FULL + 0.5)
    return FULL if confidence > 1 else 0
