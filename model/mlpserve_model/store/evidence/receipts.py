"""Receipts: signed records of answers, 49 bytes each, which servers give out and do not keep.

    flags (1 byte) | version (8) | answered at (4) | label (2) | confidence (2)
    | weights (4) | serial (4) | row hash (8) | tag (16)

Big-endian. The row hash and the tag are keyed; the tag covers the model's name and all that stands
before it. The serial tells answers to equal rows apart.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.store.secret_files import read_secrets

__all__ = [
    "FULL",
    "RECEIPT_BYTES",
    "InvalidReceipt",
    "Receipt",
    "ReceiptKeys",
    "read_keys",
    "row_bytes",
    "weights_of",
]

_BODY = struct.Struct(">BQIHH4sI8s")
_TAG_BYTES, _ROW_BYTES = 16, 8
RECEIPT_BYTES = _BODY.size + _TAG_BYTES
_AUDIT = 1
FULL = 0xFFFF  # the confidence 1
# Not 255: all 256 pixels of a byte lie between the steps, not on one.
_STEPS = np.float32(255.5)

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
        row_hash: keyed hash of the instance, 8 bytes.
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
        self._by_model: dict[str, _Hash] = {}

    def __repr__(self) -> str:
        return f"ReceiptKeys({len(self._pairs)})"

    @property
    def summary(self) -> dict[str, object]:
        """The number of keys."""
        return {"count": len(self._pairs)}

    def hash_row(self, row: bytes) -> bytes:
        """Return the hash of an instance, of what `row_bytes` gives."""
        return _hashed(self._pairs[0][0], row)[:_ROW_BYTES]

    def sign(self, receipt: Receipt, model: str) -> bytes:
        """Return the receipt as 49 signed bytes.

        Raises:
            struct.error: a field is out of range; labels end at 65535.

        """
        body = _BODY.pack(
            receipt.audit,
            receipt.version,
            receipt.answered_at,
            receipt.label,
            round(receipt.confidence * FULL),
            receipt.weights,
            receipt.serial,
            receipt.row_hash,
        )
        return body + _hashed(self._started(model), body)

    def sign_rows(
        self,
        model: str,
        version: int,
        weights: bytes,
        answered_at: int,
        answers: Iterable[tuple[bytes, bool, int, int, int, bytes]],
    ) -> list[bytes]:
        """Return the messages of answers that one version gave at one time, each with its receipt.

        A server signs thousands a second, so this is one loop without a call of our own.

        Args:
            model: The name of the model.
            version: The version that answered.
            weights: What `weights_of` gives of it.
            answered_at: Unix time, in whole seconds.
            answers: Of each the bytes that the receipt is put behind, whether it was drawn for the
                audit, the label, the confidence in steps of 1/65535, the serial, and the instance
                as `row_bytes` gives it.

        """
        rows, tags, pack = self._pairs[0][0], self._started(model), _BODY.pack
        signed = []
        for message, audit, label, confidence, serial, row in answers:
            hashed = rows.copy()
            hashed.update(row)
            # The format cuts the digest off after 8 bytes.
            digest = hashed.digest()
            body = pack(audit, version, answered_at, label, confidence, weights, serial, digest)
            tag = tags.copy()
            tag.update(body)
            signed.append(message + body + tag.digest())
        return signed

    def _started(self, model: str) -> "_Hash":
        """Return the hash of tags that has begun with a model's name."""
        started = self._by_model.get(model)
        if started is None:
            started = self._pairs[0][1].copy()
            started.update(model.encode())
            self._by_model[model] = started
        return started

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
        valid = [compare_digest(_hashed(tags, signed), tag) for _, tags in self._pairs]
        if not any(valid):
            raise InvalidReceipt(f"not a receipt for an answer of {model}, or its key is withdrawn")
        flags, version, time, label, confidence, weights, serial, row_hash = _BODY.unpack(body)
        if flags > _AUDIT:
            raise InvalidReceipt("a receipt of a newer release")
        audit = flags == _AUDIT
        return Receipt(audit, version, time, label, confidence / FULL, row_hash, weights, serial)

    def matches(self, row_hash: bytes, row: NDArray[np.float32], real: bool) -> bool:
        """Return True if a receipt's hash is that of this instance.

        Args:
            row_hash: the hash in a receipt.
            row: the instance as the network takes it, (inputs,).
            real: whether the model takes real numbers.

        """
        (data,) = row_bytes(row[None], real)
        return any(
            compare_digest(_hashed(rows, data)[:_ROW_BYTES], row_hash) for rows, _ in self._pairs
        )


def row_bytes(x: NDArray[np.float32], real: bool) -> list[bytes]:
    """Return what is hashed of each instance.

    Pixels are taken in 255 steps, whichever type they were sent in: a hash of 784 bytes takes a
    third of the time of one of 3136, and rounding between programs does not matter.

    Args:
        x: instances as the network takes them, (rows, inputs).
        real: whether the model takes real numbers, which are hashed as they are.

    """
    if real:
        data = x.astype("<f4", copy=False).tobytes()
    else:
        data = (x * _STEPS).astype(np.uint8).tobytes()
    size = len(data) // len(x)
    return [data[first : first + size] for first in range(0, len(data), size)]


def weights_of(digest: str) -> bytes:
    """Return what receipts have of the digest of a version's weights, "sha256:..." in hex."""
    return bytes.fromhex(digest.rpartition(":")[2][:8])


def read_keys(path: Path) -> ReceiptKeys:
    """Read a private file with one key a line, the one that signs first; `#` begins a comment.

    Raises:
        UnusableFile: the file cannot be used; the message has the reason and none of the content.

    """
    return ReceiptKeys(read_secrets(path, "key", _MIN_LENGTH, _MAX_KEYS))


class _Hash(Protocol):
    """One of hashlib's, whose types differ."""

    def copy(self) -> "_Hash": ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def _hashes(secret: bytes) -> tuple[_Hash, _Hash]:
    """Return the started hashes of rows and of tags: a copy costs less than a key.

    A row's is SHA-256, for which processors have instructions: half the time of BLAKE2b. A block of
    key stands before it, and 8 of 32 bytes are shown, from which nobody can go on.
    """
    key = hashlib.blake2b(secret, person=b"mlpserve key").digest()
    block = hashlib.blake2b(key=key, person=b"mlpserve row").digest()
    tags = hashlib.blake2b(key=key, digest_size=_TAG_BYTES, person=b"mlpserve receipt")
    return hashlib.sha256(block), tags


def _hashed(started: _Hash, data: bytes) -> bytes:
    hashed = started.copy()
    hashed.update(data)
    return hashed.digest()
