"""Walks over an encoded message before it is parsed, or instead of that."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["MAX_STRUCTURE", "allowed_structure", "has_too_much_structure", "text_at"]

# What a message may have beside the texts and values in it: tags, lengths, shapes. Parsed, a byte
# of it takes up to 50: an empty message of a repeated field has two. To walk over one takes half a
# microsecond, while all other calls wait. A thousand reports with instances have half of
# MAX_STRUCTURE, any other request a few hundred bytes.
MAX_STRUCTURE, _REQUEST_STRUCTURE = 64 << 10, 4 << 10
_REPORTS = "mlpserve.v1.ReportRequest"
# Integers of one byte become four: so many of their bytes count as one of structure. 32 MiB in all
# are allowed, twice the bytes of the values of the largest batch of uint8.
_UINTS_AS_ONE = 8 << 10

_VALUES = (
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_FLOAT,
    FieldDescriptor.TYPE_DOUBLE,
)
_NOT_A_FIELD = -1
# The fields of a message that are walked to find a text, nested ones included: more than any
# request has that names one.
_MAX_FIELDS = 1000


def has_too_much_structure(message: bytes, kind: type[Message]) -> bool:
    """Return True if a message would take far more memory parsed than encoded.

    Fields that are nested, repeated or unknown are walked until they exceed what is allowed; bytes,
    texts and packed floats are skipped, since they grow no further. A torn message is walked up to
    the tear, where parsing it ends too.
    """
    left = allowed_structure(kind)
    return _structure_left(message, 0, len(message), kind.DESCRIPTOR, left) < 0


def allowed_structure(kind: type[Message]) -> int:
    """Return how many bytes a message of this kind may have beside its texts and values."""
    return MAX_STRUCTURE if kind.DESCRIPTOR.full_name == _REPORTS else _REQUEST_STRUCTURE


def text_at(message: bytes, *path: int) -> str | None:
    """Return the text in the field with these numbers, nested ones; "" if there is none.

    The values that a request has beside it are skipped, and neither parsed nor copied. None for a
    message that no client sends, which is not walked to its end.
    """
    try:
        found, _ = _bytes_at(message, 0, len(message), path, _MAX_FIELDS)
    except _TooFar:
        return None
    return (found or b"").decode(errors="replace")


class _TooFar(Exception):
    """The message has a great many fields, or what proto3 does not have."""


def _bytes_at(
    data: bytes, place: int, end: int, path: tuple[int, ...], left: int
) -> tuple[bytes | None, int]:
    """Return the last field of this path, as parsers take it, or None, and how many may follow.

    Raises _TooFar after more than `left` fields, nested ones included.
    """
    found = None
    while place < end:
        left -= 1
        if left < 0:
            raise _TooFar
        tag, place = _varint(data, place)
        if tag & 7 != 2:
            place = _end_of_number(tag, data, place)
            if place == _NOT_A_FIELD:
                raise _TooFar
            continue
        length, place = _varint(data, place)
        stop = place + length
        if tag >> 3 == path[0] and stop <= end:
            is_last = len(path) == 1
            if is_last:
                inner: bytes | None = data[place:stop]
            else:
                inner, left = _bytes_at(data, place, stop, path[1:], left)
            found = found if inner is None else inner
        place = stop
    return found, left


def _structure_left(data: bytes, place: int, end: int, kind: Any, left: int) -> int:
    """Return what is left of the allowed structure behind a message; below 0 if it has more.

    `kind` is its descriptor, of whichever implementation of protobuf.
    """
    while place < end and left >= 0:
        start = place
        tag, place = _varint(data, place)
        if tag & 7 != 2:
            place = _end_of_number(tag, data, place)
            if place == _NOT_A_FIELD:
                return -1
            left -= place - start
            continue
        length, place = _varint(data, place)
        left -= place - start
        stop = place + length
        if stop > end:  # torn
            return left
        field = kind.fields_by_number.get(tag >> 3)
        if field is not None and field.message_type is not None:
            left = _structure_left(data, place, stop, field.message_type, left)
        elif field is not None and field.type == FieldDescriptor.TYPE_UINT32:
            left -= -(-length // _UINTS_AS_ONE)
        elif field is None or field.type not in _VALUES:
            left -= length
        place = stop
    return left


def _end_of_number(tag: int, data: bytes, place: int) -> int:
    """Return where a number ends that stands behind its tag."""
    match tag & 7:
        case 0:  # a varint
            return _varint(data, place)[1]
        case 1:  # eight bytes
            return place + 8
        case 5:  # four bytes
            return place + 4
    return _NOT_A_FIELD  # a group, which proto3 does not have


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and where it ends; beyond the end for one that is torn or too long."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        value, place = value | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            return value, place
    return value, len(data) + 1
