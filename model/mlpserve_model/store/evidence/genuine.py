"""Whether a record is what its receipt says; it needs the keys."""

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.store.evidence.receipts import FULL, InvalidReceipt, Receipt, ReceiptKeys
from mlpserve_model.store.evidence.records import ReportRecord

__all__ = ["is_genuine", "why_not_genuine"]


def is_genuine(report: ReportRecord, keys: ReceiptKeys) -> bool:
    """Return True if one of the keys signed the receipt, and the record says what it says."""
    return why_not_genuine(report, keys) is None


def why_not_genuine(report: ReportRecord, keys: ReceiptKeys) -> str | None:
    """Return why a record is not what its receipt says; None if it is.

    The instance is compared with the receipt's hash; what the caller claimed is nobody's to prove.
    """
    try:
        receipt = keys.verify(bytes.fromhex(report.receipt), report.model)
    except InvalidReceipt as error:
        return str(error)
    signed = {
        "audit": receipt.audit,
        "version": receipt.version,
        "answered_at": receipt.answered_at,
        "label": receipt.label,
        "row_hash": receipt.row_hash.hex(),
        "weights": receipt.weights.hex(),
    }
    different = [name for name, value in signed.items() if getattr(report, name) != value]
    if abs(receipt.confidence - report.confidence) > 1 / FULL:
        different.append("confidence")
    if different:
        return f"its {', '.join(different)} is not as in the receipt"
    if report.instance is None or _is_instance(report.instance.ravel(), receipt, keys):
        return None
    return "its instance is not the one that was answered"


def _is_instance(row: NDArray[np.float32], receipt: Receipt, keys: ReceiptKeys) -> bool:
    """Return True for the instance that was answered, as pixels or as real numbers."""
    may_be_pixels = row.min() >= 0 and row.max() <= 1
    return (may_be_pixels and keys.matches(receipt.row_hash, row, real=False)) or keys.matches(
        receipt.row_hash, row, real=True
    )
