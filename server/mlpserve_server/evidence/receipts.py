"""Receipts for answers: signed on the way out, and kept nowhere."""

import itertools
import random
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2
from mlpserve_model import Manifest
from mlpserve_model.evidence.receipts import RECEIPT_BYTES, ReceiptKeys, weights_of
from mlpserve_server.observability.observer import Observer

__all__ = ["ReceiptIssuer"]

_RECEIPTS = "mlpserve_receipts_total"
# The start of the field of a receipt, which has the same number in both responses.
_FIELD = prediction_pb2.PredictResponse(receipt=bytes(RECEIPT_BYTES)).SerializeToString()[
    :-RECEIPT_BYTES
]
_MASK = 0xFFFFFFFF  # serials have four bytes


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
        # Servers that share a key begin at different numbers.
        self._serials = itertools.count(secrets.randbits(32))

    def fields(
        self,
        manifest: Manifest,
        probabilities: NDArray[np.float32],
        rows: Sequence[bytes | memoryview],
    ) -> list[bytes]:
        """Return the encoded field of each row's receipt, to be put behind its response.

        Args:
            manifest: The version that answered.
            probabilities: What it answered, (rows, classes).
            rows: The instances as they were sent.

        """
        keys, share, serials = self._keys(), self._audit_share, self._serials
        sign = partial(keys.sign_fields, manifest.model.encode())
        hash_row, draw = keys.hash_row, random.random
        version, weights, now = manifest.version, weights_of(manifest.digest), int(time.time())
        labels = probabilities.argmax(axis=1).tolist()
        confidences = probabilities.max(axis=1).tolist()
        audits = [draw() < share for _ in rows]
        drawn, named = sum(audits), (manifest.model, str(version))
        self._observer.count(_RECEIPTS, *named, "audit", amount=drawn)
        self._observer.count(_RECEIPTS, *named, "plain", amount=len(audits) - drawn)
        each = zip(audits, labels, confidences, serials, map(hash_row, rows), strict=False)
        return [
            _FIELD + sign(audit, version, now, label, _steps(p), weights, n & _MASK, row_hash)
            for audit, label, p, n, row_hash in each
        ]


def _steps(confidence: float) -> int:
    """Return a confidence in steps of 1/65535; what is not from 0 to 1 is taken as the nearest."""
    return int(min(max(confidence, 0.0), 1.0) * 0xFFFF + 0.5)
