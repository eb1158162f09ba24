"""Whether a record is what its receipt says; it needs the keys."""

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.store.evidence.receipts import InvalidReceipt, Receipt, ReceiptKeys
from mlpserve_model.store.evidence.records import ReportRecord

__all__ = ["is_genuine"]


def is_genuine(report: ReportRecord, keys: ReceiptKeys) -> bool:
    """Return True if one of the keys signed the receipt, and the record says what it says.

    The instance is compared with the receipt's hash; what the caller claimed is nobody's to prove.
    """
    try:
        receipt = keys.verify(bytes.fromhex(report.receipt), report.model)
    except InvalidReceipt:
        return False
    signed = (receipt.audit, receipt.version, receipt.answered_at, receipt.label)
    claimed = (report.audit, report.version, report.answered_at, report.label)
    hashes = (receipt.row_hash.hex(), receipt.weights.hex())
    if signed != claimed or hashes != (report.row_hash, report.weights):
        return False
    return report.instance is None or _is_instance(report.instance.ravel(), receipt, keys)


def _is_instance(row: NDArray[np.float32], receipt: Receipt, keys: ReceiptKeys) -> bool:
    """Return True for the instance that was answered, as pixels or as real numbers."""
    may_be_pixels = row.min() >= 0 and row.max() <= 1
    return (may_be_pixels and keys.matches(receipt.row_hash, row, real=False)) or keys.matches(
        receipt.row_hash, row, real=True
    )
