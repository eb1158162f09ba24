"""Receipts for answers: signed on the way out, and kept nowhere."""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
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

    def append(
        self,
        messages: Iterable[bytes],
        manifest: Manifest,
        probabilities: NDArray[np.float32],
        rows: Sequence[bytes],
    ) -> list[bytes]:
        """Return the messages of rows, with the field of each row's receipt behind it.

        Args:
            messages: The encoded response of each row; of a batch's rows, nothing.
            manifest: The version that answered.
            probabilities: What it answered, (rows, classes).
            rows: What their receipts have the hash of.

        """
        keys, share, version = self._keys(), self._audit_share, self._version
        if version.manifest is not manifest:
            version = self._version = _Version.of(manifest)
        labels = probabilities.argmax(axis=1).tolist()
        audits = _drawn(share, len(labels))
        self._count(version.labels, audits)
        answers = zip(
            [message + _FIELD for message in messages],
            audits,
            labels,
            _steps(probabilities, labels),
            self._serials,
            rows,
            strict=False,
        )
        now = int(time.time())
        return keys.sign_rows(manifest.model, manifest.version, version.weights, now, answers)

    def _count(self, version: tuple[str, str], audits: list[bool]) -> None:
        drawn = sum(audits)
        if drawn:
            self._observer.count(_RECEIPTS, *version, "audit", amount=drawn)
        if drawn < len(audits):
            self._observer.count(_RECEIPTS, *version, "plain", amount=len(audits) - drawn)


def _drawn(share: float, rows: int) -> list[bool]:
    """Return whether each of some receipts is drawn for the audit.

    By the system's randomness: callers see what was drawn, and could compute from that what a
    generator such as Python's own draws next.
    """
    limit = share * 2**32
    return [draw < limit for draw in memoryview(os.urandom(4 * rows)).cast("I")]


def _steps(probabilities: NDArray[np.float32], labels: Sequence[int]) -> list[int]:
    """Return the confidences in steps of 1/65535; of imported networks they may be any numbers."""
    probability = probabilities.item  # for a few rows faster than an index of arrays
    found = [probability(row, label) for row, label in enumerate(labels)]
    return [int(p * FULL + 0.5) if 0 <= p <= 1 else FULL * (p > 1) for p in found]
