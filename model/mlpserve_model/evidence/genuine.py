"""Whether a record is what its receipt says; for whoever has the keys."""

from mlpserve_model.evidence.receipts import InvalidReceipt, ReceiptKeys
from mlpserve_model.evidence.records import ReportRecord

__all__ = ["is_genuine"]


def is_genuine(report: ReportRecord, keys: ReceiptKeys) -> bool:
    """Return True if one of the keys signed the receipt, and the record's fields are its own."""
    try:
        receipt = keys.verify(bytes.fromhex(report.receipt), report.model)
    except InvalidReceipt:
        return False
    signed = (receipt.audit, receipt.version, receipt.answered_at, receipt.label)
    claimed = (report.audit, report.version, report.answered_at, report.label)
    return signed == claimed and receipt.row_hash.hex() == report.row_hash
