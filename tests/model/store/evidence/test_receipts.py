from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import scale_pixels
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.receipts import (
    RECEIPT_BYTES,
    InvalidReceipt,
    Receipt,
    ReceiptKeys,
    read_keys,
    row_bytes,
    weights_of,
)

OLD, NEW = "o" * 32, "n" * 32
ROW = bytes(range(256))
KEYS = ReceiptKeys([NEW])
RECEIPT = Receipt(
    audit=True,
    version=7,
    answered_at=1_800_000_000,
    label=3,
    confidence=1.0,
    row_hash=KEYS.hash_row(ROW),
    weights=weights_of("sha256:0011223344"),
    serial=9,
)


def test_a_receipt_has_49_bytes_and_says_what_was_signed() -> None:
    signed = KEYS.sign(RECEIPT, "digits")
    assert len(signed) == RECEIPT_BYTES == 49
    assert KEYS.verify(signed, "digits") == RECEIPT


def test_a_confidence_is_kept_to_four_digits() -> None:
    signed = KEYS.sign(replace(RECEIPT, confidence=0.12345), "digits")
    assert KEYS.verify(signed, "digits").confidence == pytest.approx(0.12345, abs=1e-5)


@pytest.mark.parametrize("place", range(RECEIPT_BYTES))
def test_no_bit_of_a_receipt_can_be_changed(place: int) -> None:
    signed = bytearray(KEYS.sign(RECEIPT, "digits"))
    for bit in range(8):
        signed[place] ^= 1 << bit
        with pytest.raises(InvalidReceipt):
            KEYS.verify(bytes(signed), "digits")
        signed[place] ^= 1 << bit


@pytest.mark.parametrize("length", [0, 1, 48, 50, 4096])
def test_receipts_of_other_lengths_are_refused_with_the_length(length: int) -> None:
    with pytest.raises(InvalidReceipt, match=f"49 bytes, got {length}"):
        KEYS.verify(bytes(length), "digits")


def test_a_receipt_is_for_one_model() -> None:
    signed = KEYS.sign(RECEIPT, "digits")
    with pytest.raises(InvalidReceipt, match="not a receipt for an answer of letters"):
        KEYS.verify(signed, "letters")


def test_a_receipt_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidReceipt):
        ReceiptKeys([OLD]).verify(KEYS.sign(RECEIPT, "digits"), "digits")


def test_the_first_key_signs_and_all_verify() -> None:
    old, both = ReceiptKeys([OLD]), ReceiptKeys([NEW, OLD])
    before = replace(RECEIPT, row_hash=old.hash_row(ROW))
    assert both.verify(old.sign(before, "digits"), "digits") == before
    assert both.sign(RECEIPT, "digits") == KEYS.sign(RECEIPT, "digits")
    row = scale_pixels(np.frombuffer(ROW, np.uint8), 255)
    for receipt in (before, RECEIPT):
        assert both.matches(receipt.row_hash, row, real=False)


@pytest.mark.parametrize("maximum", [1, 16, 255])
def test_pixels_match_whichever_way_they_were_scaled_and_no_others_do(maximum: int) -> None:
    pixels = (np.arange(64) % (maximum + 1)).astype(np.uint8)
    scaled = scale_pixels(pixels, maximum)
    (data,) = row_bytes(scaled[None], real=False)
    row_hash = KEYS.hash_row(data)
    assert KEYS.matches(row_hash, scaled, real=False)
    assert KEYS.matches(row_hash, (pixels / maximum).astype(np.float32), real=False)
    assert not KEYS.matches(row_hash, scaled[::-1].copy(), real=False)
    other = scaled.copy()
    other[3] += np.float32(1 / 255)
    assert not KEYS.matches(row_hash, other, real=False)


def test_real_inputs_match_to_the_last_bit() -> None:
    row = np.array([-3.5, 1e6, 0.25], np.float32)
    (data,) = row_bytes(row[None], real=True)
    row_hash = KEYS.hash_row(data)
    assert KEYS.matches(row_hash, row, real=True)
    other = row.copy()
    other[2] = np.nextafter(np.float32(0.25), np.float32(1))
    assert not KEYS.matches(row_hash, other, real=True)


def test_the_rows_of_a_batch_are_those_of_single_calls() -> None:
    x = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    for real in (False, True):
        assert row_bytes(x, real) == [row_bytes(row[None], real)[0] for row in x]


def test_rows_are_hashed_otherwise_under_another_key() -> None:
    assert ReceiptKeys([OLD]).hash_row(ROW) != KEYS.hash_row(ROW)


def test_rows_signed_together_are_those_signed_alone() -> None:
    answers = [(b"<", n == 1, n, 65535 - n, 2**32 - 1 - n, ROW[n:]) for n in range(3)]
    signed = KEYS.sign_rows("digits", 7, b"abcd", 1_800_000_000, answers)
    alone = [
        Receipt(audit, 7, 1_800_000_000, label, steps / 65535, KEYS.hash_row(row), b"abcd", serial)
        for _, audit, label, steps, serial, row in answers
    ]
    assert signed == [b"<" + KEYS.sign(receipt, "digits") for receipt in alone]
    assert [KEYS.verify(receipt[1:], "digits") for receipt in signed] == alone


def test_keys_do_not_show_in_a_representation() -> None:
    assert NEW not in repr(KEYS) + str(KEYS.summary)


def test_a_file_of_keys_is_read_in_order(tmp_path: Path) -> None:
    keys = _file(tmp_path, f"# receipts\n\n{NEW}  # 2026\n{OLD}\n")
    assert read_keys(keys).sign(RECEIPT, "digits") == KEYS.sign(RECEIPT, "digits")
    assert read_keys(keys).summary == {"count": 2}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "has no key: expected one a line"),
        ("# nothing\n", "has no key"),
        ("k" * 31, "a key of 31 characters can be guessed: expected at least 32"),
        ("k" * 32 + " more", "line 1 of .* is not a key"),
        ("\n".join(f"{n:032}" for n in range(17)), "has 17 keys: expected at most 16"),
    ],
)
def test_an_unusable_file_of_keys_is_refused_with_its_reason(
    content: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UnusableFile, match=expected) as caught:
        read_keys(_file(tmp_path, content))
    assert "kkk" not in str(caught.value)


def test_keys_that_everybody_may_read_are_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, NEW)
    file.chmod(0o644)
    with pytest.raises(UnusableFile, match="chmod 600"):
        read_keys(file)


def _file(folder: Path, content: str) -> Path:
    file = folder / "keys"
    file.write_text(content)
    file.chmod(0o600)
    return file
