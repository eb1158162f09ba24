"""Receipts: signed records of answers, 49 bytes each, which servers give out and do not keep.

    flags (1 byte) | version (8) | answered at (4) | label (2) | confidence (2)
    | weights (4) | serial (4) | row hash (8) | tag (16)

Big-endian. Row hash and tag are keyed BLAKE2b; the tag covers the model's name and all that stands
before it. The serial tells answers to equal rows apart.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.nn.network import scale_pixels
from mlpserve_model.store.secret_files import read_secrets

__all__ = [
    "RECEIPT_BYTES",
    "InvalidReceipt",
    "Receipt",
    "ReceiptKeys",
    "read_keys",
    "weights_of",
]

_BODY = struct.Struct(">BQIHH4sI8s")
_TAG_BYTES = 16
RECEIPT_BYTES = _BODY.size + _TAG_BYTES
_AUDIT = 1
_FULL = 0xFFFF  # the confidence 1

# A key that can be guessed makes every receipt worthless.
_MIN_LENGTH = 32
_MAX_KEYS = 16


class InvalidReceipt(ValueError):
    """The bytes are not a receipt that one of the keys has signed for this model."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a server answered.

    Attributes:
        audit: whether the answer was drawn for the audit, at random.
        version: the version that answered.
        answered_at: Unix time, in whole seconds.
        label: the predicted class.
        confidence: its probability, in steps of 1/65535.
        row_hash: keyed hash of the instance as it was sent, 8 bytes.
        weights: first 4 bytes of the SHA-256 of the version's weights, see `weights_of`.
        serial: tells answers to equal rows apart.

    """

    audit: bool
    version: int
    answered_at: int
    label: int
    confidence: float
    row_hash: bytes
    weights: bytes = bytes(4)
    serial: int = 0


class ReceiptKeys:
    """The keys of receipts: the first signs, all verify. Neither repr() nor the summary shows any.

    Args:
        secrets: the keys as they stand in the file, at least one.

    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._pairs = [_hashes(secret.encode()) for secret in dict.fromkeys(secrets)]

    def __repr__(self) -> str:
        return f"ReceiptKeys({len(self._pairs)})"

    @property
    def summary(self) -> dict[str, object]:
        """The number of keys."""
        return {"count": len(self._pairs)}

    def hash_row(self, row: bytes | memoryview) -> bytes:
        """Return the hash of an instance as it was sent, uint8 or little-endian float32."""
        return _keyed(self._pairs[0][0], row)

    def sign(self, receipt: Receipt, model: str) -> bytes:
        """Return the receipt as 49 signed bytes.

        Raises:
            struct.error: a field is out of range; labels end at 65535.

        """
        return self.sign_fields(
            model.encode(),
            _AUDIT if receipt.audit else 0,
            receipt.version,
            receipt.answered_at,
            receipt.label,
            round(receipt.confidence * _FULL),
            receipt.weights,
            receipt.serial,
            receipt.row_hash,
        )

    def sign_fields(self, model: bytes, *fields: int | bytes) -> bytes:
        """Return the signed bytes of the fields as the format has them; the server's fast path."""
        body = _BODY.pack(*fields)
        return body + _keyed(self._pairs[0][1], model + body)

    def verify(self, data: bytes, model: str) -> Receipt:
        """Return the receipt in these bytes.

        Raises:
            InvalidReceipt: none of the keys has signed them for this model.

        """
        if len(data) != RECEIPT_BYTES:
            raise InvalidReceipt(f"a receipt has {RECEIPT_BYTES} bytes, got {len(data)}")
        body, tag = data[: _BODY.size], data[_BODY.size :]
        signed = model.encode() + body
        # All are compared, so that the time of a refusal tells nothing of a key.
        valid = [compare_digest(_keyed(tags, signed), tag) for _, tags in self._pairs]
        if not any(valid):
            raise InvalidReceipt(f"not a receipt for an answer of {model}, or its key is withdrawn")
        flags, version, time, label, confidence, weights, serial, row_hash = _BODY.unpack(body)
        if flags > _AUDIT:
            raise InvalidReceipt("a receipt of a newer release")
        audit = flags == _AUDIT
        return Receipt(audit, version, time, label, confidence / _FULL, row_hash, weights, serial)

    def matches(self, row_hash: bytes, row: NDArray[np.float32], maximum: float) -> bool:
        """Return True if a receipt's hash is that of this instance, in either of its types.

        Args:
            row_hash: the hash in a receipt.
            row: the instance as the network takes it: scaled, if it was sent as pixels.
            maximum: what pixels of the model are divided by.

        """
        sent = [row.astype("<f4").tobytes(), *_as_pixels(row, maximum)]
        return any(
            compare_digest(_keyed(rows, data), row_hash) for rows, _ in self._pairs for data in sent
        )


def weights_of(digest: str) -> bytes:
    """Return what receipts have of the digest of a version's weights, "sha256:..." in hex."""
    return bytes.fromhex(digest.rpartition(":")[2][:8])


def read_keys(path: Path) -> ReceiptKeys:
    """Read a private file with one key a line, the one that signs first; `#` begins a comment.

    Raises:
        UnusableFile: the file cannot be used; the message has the reason and none of the content.

    """
    return ReceiptKeys(read_secrets(path, "key", _MIN_LENGTH, _MAX_KEYS))


_Hashes = tuple["hashlib.blake2b", "hashlib.blake2b"]


def _hashes(secret: bytes) -> _Hashes:
    """Return the started hashes of rows and of tags: a copy costs less than a key."""
    key = hashlib.blake2b(secret, person=b"mlpserve key").digest()
    return (
        hashlib.blake2b(key=key, digest_size=8, person=b"mlpserve row"),
        hashlib.blake2b(key=key, digest_size=_TAG_BYTES, person=b"mlpserve receipt"),
    )


def _keyed(started: "hashlib.blake2b", data: bytes | memoryview) -> bytes:
    hashed = started.copy()
    hashed.update(data)
    return hashed.digest()


def _as_pixels(row: NDArray[np.float32], maximum: float) -> Iterator[bytes]:
    """Give the uint8 that become this row when they are scaled, if there are any."""
    pixels = np.rint(row * np.float32(maximum))
    if pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        exact = pixels.astype(np.uint8)
        if np.allclose(scale_pixels(exact, maximum), row, rtol=0, atol=1e-6):
            yield exact.tobytes()
