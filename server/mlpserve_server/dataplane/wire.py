"""A look at an encoded message before it is parsed."""

__all__ = ["has_more_fields"]


def has_more_fields(message: bytes, maximum: int) -> bool:
    """Return True if an encoded message has more fields than this at its top, or is not one.

    An empty message of a repeated field has two bytes and becomes an object fifty times as large:
    64 MiB of them would take gigabytes. What comes beyond the maximum is not looked at.
    """
    place = fields = 0
    while place < len(message):
        fields += 1
        if fields > maximum:
            return True
        place = _end_of_field(message, place)
    return place > len(message)


def _end_of_field(data: bytes, place: int) -> int:
    """Return where the next field begins; beyond the end for what is not a field."""
    tag, place = _varint(data, place)
    match tag & 7:
        case 0:  # a varint
            return _varint(data, place)[1]
        case 1:  # eight bytes
            return place + 8
        case 2:  # a length and so many bytes
            length, place = _varint(data, place)
            return place + length
        case 5:  # four bytes
            return place + 4
    return len(data) + 1  # a group, which proto3 does not have


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
