"""Addresses of servers, in the forms that gRPC takes."""

import ipaddress
import re
from collections.abc import Sequence

from mlpserve_client._errors import SettingsError

DEFAULT_PORT = 50051

_UNIX = ("unix:", "unix-abstract:")
_AS_GRPC_READS_IT = (*_UNIX, "vsock:", "ipv4:", "ipv6:", "xds:")
_DNS = re.compile(r"dns:(//[^/]*/)?")


def parse_targets(target: str | Sequence[str]) -> tuple[str, ...]:
    """Split targets at commas and complete each of them with the default port.

    Raises:
        SettingsError: a target is not a host and a port.

    """
    parts = target.split(",") if isinstance(target, str) else target
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise SettingsError(f"invalid target {target!r}: expected text such as localhost:50051")
    return tuple(_with_port(part.strip()) for part in parts if part.strip())


def is_local(target: str) -> bool:
    """Return True if a target is on this machine: no proxy, and a token may go unencrypted."""
    if target.startswith(_UNIX):
        return True
    host = target[_prefix(target) :].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _prefix(target: str) -> int:
    """Return the length of `dns:` or `dns://authority/` in front of a name."""
    found = _DNS.match(target)
    return found.end() if found else 0


def _with_port(target: str) -> str:
    if target.startswith(_AS_GRPC_READS_IT):
        return target
    start = _prefix(target)
    scheme, address = target[:start], target[start:]
    if "://" in address:
        raise SettingsError(f"{target!r} has a scheme that is not supported: expected host:port")
    if _is_bare_ipv6(address):
        address = f"[{address}]"
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)  # gRPC would take 443
    if not re.fullmatch(r"\[.+\]|[^][:]+", host):
        raise SettingsError(f"{target!r} has no host: expected host:port, [IPv6]:port or a name")
    if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= 65535):
        raise SettingsError(f"{target!r} has port {port!r}: expected 1 to 65535")
    return f"{scheme}{host}:{port}"


def _is_bare_ipv6(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 6
    except ValueError:
        return False
