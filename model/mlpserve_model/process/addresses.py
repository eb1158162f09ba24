"""Addresses to listen on, as people write them."""

import re

__all__ = ["is_host_and_port"]

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[^\[\]:]+):([0-9]{1,5})")


def is_host_and_port(address: str) -> bool:
    """Return True for host:port and [IPv6]:port, whose host may still not be known to DNS."""
    match = _HOST_AND_PORT.fullmatch(address)
    if not match:
        return False
    host, port = match.groups()
    try:
        host.encode("idna")  # as its resolution will; fails for empty and overlong labels
    except UnicodeError:
        return False
    return int(port) < 65536
