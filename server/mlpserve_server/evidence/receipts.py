"""Receipts for answers: signed on the way out, and kept nowhere."""

import random
import secrets
import time
from collections.abc import Callable
from itertools import count, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2
from mlpserve_model import Manifest
from mlpserve_model.evidence.receipts import FULL, RECEIPT_BYTES, ReceiptKeys, row_bytes, weights_of
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
    is_real: bool = False  # its inputs are any numbers
    is_open: bool = False  # its answers are, too

    @classmethod
    def of(cls, manifest: Manifest) -> "_Version":
        is_real = manifest.signature.input_kind == "real"
        weights = weights_of(manifest.digest)
        labels = manifest.model, str(manifest.version)
        is_open = manifest.network.output_activation == "identity"
        return cls(manifest, labels, weights, is_real, is_open)


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
        x: NDArray[np.float32],
    ) -> list[bytes]:
        """Return the encoded field of each row's receipt, to be put behind its response.

        Args:
            manifest: The version that answered.
            probabilities: What it answered, (rows, classes).
            x: The instances, scaled, (rows, inputs).

        """
        keys, share, version = self._keys(), self._audit_share, self._version
        if version.manifest is not manifest:
            version = self._version = _Version.of(manifest)
        labels = probabilities.argmax(axis=1).tolist()
        audits = [random.random() < share for _ in labels]
        self._count(version.labels, audits)
        top = probabilities.max(axis=1)
        receipts = zip(
            audits,
            repeat(manifest.version),
            repeat(int(time.time())),
            labels,
            [int(p * FULL + 0.5) for p in (top.clip(0, 1) if version.is_open else top).tolist()],
            repeat(version.weights),
            self._serials,
            map(keys.hash_row, row_bytes(x, version.is_real)),
            strict=False,
        )
        return [_FIELD + signed for signed in keys.sign_all(manifest.model, receipts)]

    def _count(self, version: tuple[str, str], audits: list[bool]) -> None:
        drawn = sum(audits)
        if drawn:
            self._observer.count(_RECEIPTS, *version, "audit", amount=drawn)
        if drawn < len(audits):
            self._observer.count(_RECEIPTS, *version, "plain", amount=len(audits) - drawn)
