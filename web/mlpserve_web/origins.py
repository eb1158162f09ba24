"""Which pages of other sites may call: none, unless they are named.

A browser sends requests for any page that it shows, also to addresses that only its own
machine reaches. Two headers tell: `Origin` names the page's site, `Host` the name it used.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["HostPolicy", "OriginPolicy"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Names under these are given out by a network for itself, to nobody outside it.
_PRIVATE = (".local", ".localhost", ".internal", ".home.arpa", ".svc")
_PORT = re.compile(r":[0-9]*$")


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The names by which this gateway may be called.

    A page of a foreign site can let the site's own name resolve to the gateway (DNS rebinding);
    `Origin` and `Host` then agree. So a name that the site's owner could have is refused, unless
    it is named. Behind TLS the certificate refuses it.

    Attributes:
        names: further names; `*` is any.
        loopback: whether only this machine can connect, and only its own names are meant.
        encrypted: whether the gateway shows a certificate.

    """

    names: Sequence[str] = ()
    loopback: bool = False
    encrypted: bool = False

    def allows(self, header: str) -> bool:
        """Return True if a request with this Host header may be answered."""
        host = _PORT.sub("", header).strip("[]").rstrip(".").lower()
        if "*" in self.names or host in self.names or host in _LOOPBACK:
            return True
        if self.loopback:
            return False
        # Browsers send a Host header; some health checks do not.
        return self.encrypted or "." not in host or host.endswith(_PRIVATE) or _is_address(host)


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """The origins of other sites whose pages may call, and the names of this one."""

    allowed: Sequence[str] = ()
    hosts: HostPolicy = HostPolicy()

    def middleware(self) -> list[Middleware]:
        """Return what is put before the routes, outermost first."""
        layers = [
            Middleware(_RefuseOtherHosts, policy=self.hosts),
            Middleware(_RefuseOtherOrigins, allowed=frozenset(self.allowed)),
        ]
        if self.allowed:
            layers.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=list(self.allowed),
                    allow_methods=["GET", "POST"],
                    allow_headers=["*"],
                )
            )
        return layers


class _RefuseOtherHosts:
    """Answers 400 to a request for a name that is not this gateway's."""

    def __init__(self, app: ASGIApp, policy: HostPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if not self._policy.allows(host):
                message = f"{host[:63]!r} is not a name of this gateway: see --allow-host"
                app = JSONResponse({"error": message}, 400)
        await app(scope, receive, send)


class _RefuseOtherOrigins:
    """Answers 403 to a request whose Origin is neither ours nor allowed."""

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            origin = headers.get(b"origin", b"").decode("latin-1")
            host = headers.get(b"host", b"").decode("latin-1")
            own = origin.partition("://")[2] == host
            if origin and not own and origin not in self._allowed:
                app = JSONResponse({"error": "requests from this origin are not allowed"}, 403)
        await app(scope, receive, send)


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
