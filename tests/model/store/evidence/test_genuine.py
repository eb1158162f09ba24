from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlpserve_model.store.evidence.genuine import is_genuine
from mlpserve_model.store.evidence.receipts import Receipt, ReceiptKeys, row_bytes
from mlpserve_model.store.evidence.records import ReportRecord

KEYS = ReceiptKeys(["k" * 32])
PIXELS = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)


def report(instance: Any = PIXELS, real: bool = False) -> ReportRecord:
    (data,) = row_bytes(instance.reshape(1, -1), real)
    receipt = Receipt(
        audit=True,
        version=3,
        answered_at=1_800_000_000,
        label=4,
        confidence=0.5,
        row_hash=KEYS.hash_row(data),
        weights=b"abcd",
    )
    signed = KEYS.sign(receipt, "digits").hex()
    return ReportRecord(
        tag=signed[-32:],
        model="digits",
        version=3,
        weights=b"abcd".hex(),
        answered_at=receipt.answered_at,
        label=4,
        confidence=0.5,
        audit=True,
        row_hash=receipt.row_hash.hex(),
        truth=None,
        right=False,
        source="",
        reported_at=1_800_000_060.5,
        instance=instance,
        receipt=signed,
    )


def test_what_a_server_has_kept_is_genuine() -> None:
    assert is_genuine(report(), KEYS)
    assert is_genuine(replace(report(), instance=None), KEYS)
    for numbers in ([-3.0, 1e6, 0.5], [0.1, 0.2, 0.3]):
        assert is_genuine(report(np.array(numbers, np.float32), real=True), KEYS)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "letters"},
        {"version": 4},
        {"weights": "00000000"},
        {"answered_at": 1_800_000_001},
        {"label": 5},
        {"audit": False},
        {"row_hash": "00" * 8},
        {"receipt": "00" * 49},
        {"instance": PIXELS[::-1].copy()},
        {"instance": PIXELS + np.float32(2)},
    ],
)
def test_what_was_written_by_another_hand_is_not(change: dict[str, Any]) -> None:
    assert not is_genuine(replace(report(), **change), KEYS)


def test_a_receipt_of_another_key_is_not() -> None:
    assert not is_genuine(report(), ReceiptKeys(["n" * 32]))
