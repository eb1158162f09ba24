"""Why nobody can listen on an address: gRPC itself does not say."""

import os
import socket
from pathlib import Path

__all__ = ["obstacle"]

# What the system keeps a socket's path in, without the zero at its end.
_LONGEST_PATH = 107


def obstacle(address: str) -> str | None:
    """What is in the way of listening on `host:port` or `unix:path`; None when nothing is."""
    if address.startswith("unix:"):
        return _of_file(Path(address.removeprefix("unix:")))
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, place = found[0]
        with socket.socket(family) as alone:
            # As servers do, which may follow each other on a port at once.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
            alone.listen()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _of_file(path: Path) -> str | None:
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        return f"a socket's path may have {_LONGEST_PATH} bytes, this has {length}"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if path.exists() and not path.is_socket():
        return "there is something else of this name"
    if not os.access(path.parent, os.W_OK):
        return f"no permission to write in {path.parent}"
    return None
