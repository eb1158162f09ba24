"""Requests that their senders compressed: inflated here, within a bound.

gRPC's core would inflate a message before anything else sees it, up to the largest one of any
method: 50 calls of Predict with 30 KB each took 1.6 GiB, in a server that was to use 8 MiB for
requests. So it hands messages over as they were sent.
"""

import zlib
from collections.abc import Callable
from contextlib import suppress

from mlpserve_server.errors import InvalidInput, RequestTooLarge
from mlpserve_server.transport.services import COPIES

__all__ = ["inflate", "inflate_large", "is_compressed"]

_GZIP, _ZLIB = 0x1F, 0x78
# The largest window, with the header of either format.
_EITHER = 32 + zlib.MAX_WBITS
# What most requests become at most. To reserve the memory of the largest one for each would refuse
# calls of which hundreds fit; to inflate the few that become more a second time costs little.
_USUAL_BYTES = 1 << 20


def is_compressed(request: bytes) -> bool:
    """Return True for a request in gzip's format or zlib's.

    None of protobuf begins as gzip does, with a wire type that does not exist, and none of this
    server's as zlib does, with field 15.
    """
    if len(request) < 2 or request[0] not in (_GZIP, _ZLIB):
        return False
    return request[1] == 0x8B if request[0] == _GZIP else int.from_bytes(request[:2]) % 31 == 0


def inflate(request: bytes, limit: int) -> bytes:
    """Return a compressed request as its sender had it.

    Args:
        request: The message that was sent.
        limit: The maximum of bytes that it may become.

    Raises:
        RequestTooLarge: It becomes more.
        InvalidInput: It is damaged.

    """
    inflater = zlib.decompressobj(_EITHER)
    try:
        data = inflater.decompress(request, limit + 1)
    except zlib.error:
        raise InvalidInput("", "a damaged compressed request: send it again") from None
    if len(data) > limit:
        raise RequestTooLarge(limit)
    if not inflater.eof:
        raise InvalidInput("", "a compressed request without its end: send it again")
    if inflater.unused_data:
        raise InvalidInput("", "a compressed request with bytes behind its end: send it again")
    return data


def inflate_large(request: bytes, limit: int, reserve: Callable[[int], object]) -> bytes:
    """Return a compressed request as its sender had it, of the usual size or up to the limit.

    Args:
        request: The message that was sent.
        limit: The maximum of bytes that it may become.
        reserve: Called with the bytes that are needed in all, before they are.

    Raises:
        RequestTooLarge: It becomes more.
        InvalidInput: It is damaged.

    """
    if limit > _USUAL_BYTES:
        reserve(COPIES * _USUAL_BYTES)
        with suppress(RequestTooLarge):
            return inflate(request, _USUAL_BYTES)
    reserve(COPIES * limit)
    return inflate(request, limit)
