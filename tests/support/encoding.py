"""Fields of protobuf messages as bytes, for what no message class would write."""

__all__ = ["field"]


def field(number: int, content: bytes) -> bytes:
    """Return a field of a length and so many bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])
