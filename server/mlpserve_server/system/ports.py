"""Addresses to listen on: whether one is free, and what is in the way when it is not."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["PortTaken", "exclusive", "obstacle", "require_free", "reserved", "unshareable"]

# What the system keeps a socket's path in, without the zero at its end.
_MAX_PATH = 107
_LOCK_SECONDS = 5.0
# A machine without IPv6, or without this address.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

# A family of addresses, and what its sockets are bound to.
Place: TypeAlias = tuple[int, Any]


class PortTaken(Exception):
    """Another program listens on an address."""


def obstacle(address: str) -> str | None:
    """Return what prevents listening on `host:port` or `unix:path`, None when nothing does.

    gRPC itself does not say. Of a host with several addresses, it is content with any of them: a
    server on the rest of `localhost` would share its callers with the program on 127.0.0.1.
    """
    if address.startswith("unix:"):
        return _obstacle_of_path(_path(address))
    try:
        places = _places(address)
    except OSError as error:
        return error.strerror or str(error)
    failures = [
        (place[0], failure)
        for family, place in places
        if (failure := _bind_error(family, place)) is not None
    ]
    decisive = [each for each in failures if each[1].errno not in _ABSENT]
    if not decisive and len(failures) < len(places):
        return None
    host, failure = (decisive or failures)[0]
    return f"{failure.strerror} on {host}" if len(places) > 1 else failure.strerror


def unshareable(addresses: Sequence[str]) -> str | None:
    """Return why several processes cannot listen on these addresses, None when they can."""
    if all(address.startswith("unix:") for address in addresses):
        return "a socket file cannot be shared"
    if not hasattr(socket, "SO_REUSEPORT"):
        return "this system cannot share ports"
    return None


def require_free(address: str) -> None:
    """Raise PortTaken if something prevents listening on an address that is not ours to share."""
    if reason := obstacle(address):
        raise PortTaken(f"cannot listen on {address}: {reason} (--listen chooses another)")


@contextmanager
def reserved(address: str) -> Iterator[str]:
    """Hold a port without listening on it; yields the address with the port it has become.

    Raises:
        PortTaken: another program listens there.

    """
    if address.startswith("unix:"):
        with exclusive(address):
            pass  # the worker that binds it checks again
        yield address
        return
    # It finds any process that listens there, a twin of ours too, which shares the port.
    require_free(address)
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for family, place in _places(address):
            if _bind_error(family, place) is None:
                shared = stack.enter_context(socket.socket(family))
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                try:
                    shared.bind((place[0], int(port), *place[2:]))
                except OSError as error:  # taken since, or a port 0 that is free for one alone
                    raise PortTaken(f"cannot listen on {address}: {error.strerror}") from error
                port = shared.getsockname()[1]
        yield f"{host}:{port}"


@contextmanager
def exclusive(address: str) -> Iterator[None]:
    """Make sure that no program listens on a socket file while it is bound; a no-op for TCP.

    gRPC removes the socket file that it finds, be it stale or a living server's. The lock on the
    folder keeps two servers that start at once from finding the same stale file.

    Raises:
        PortTaken: another program listens there.

    """
    path = _path(address)
    if not address.startswith("unix:") or not path.parent.is_dir():
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _lock(folder):
            raise PortTaken(f"cannot listen on {address}: another program locks its folder")
        if _is_listened_on(path):
            raise PortTaken(f"cannot listen on {address}: Address already in use")
        yield
    finally:
        os.close(folder)


def _path(address: str) -> Path:
    return Path(address.removeprefix("unix:"))


def _places(address: str) -> list[Place]:
    """Return the addresses of a host as gRPC finds them, of which one may be absent here."""
    host, _, port = address.rpartition(":")
    # Both loopback addresses, whatever the system's list of hosts says.
    names = ("127.0.0.1", "::1") if host == "localhost" else (host.strip("[]"),)
    return [
        (family, place)
        for name in names
        for family, _, _, _, place in socket.getaddrinfo(
            name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    ]


def _bind_error(family: int, place: Any) -> OSError | None:
    """Listen for a moment; return the error if that fails."""
    try:
        with socket.socket(family) as alone:
            # As servers do, which may follow each other on a port at once.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
            alone.listen()
    except OSError as error:
        return error
    return None


def _obstacle_of_path(path: Path) -> str | None:
    length = len(os.fsencode(path))
    if length > _MAX_PATH:
        return f"a socket's path may have {_MAX_PATH} bytes, this has {length}"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if path.exists() and not path.is_socket():
        return "there is something else of this name"
    if not os.access(path.parent, os.W_OK):
        return f"no permission to write in {path.parent}"
    return None


def _lock(folder: int) -> bool:
    """Lock the folder within a few seconds; return whether that succeeded."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        else:
            return True


def _is_listened_on(path: Path) -> bool:
    """Return whether a program accepts connections there, or may do so as far as we can see."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(1)
        try:
            caller.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            # A path that is too long has no errno; what else fails is there and not ours.
            return error.errno is not None
    return True
