"""Which pages of other sites may call: none, unless they are named.

A browser sends requests for any page that it shows, also to addresses that only its own
machine reaches. Two headers tell: `Origin` names the page's site, `Host` the name it used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["OriginPolicy"]

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """The origins of other sites whose pages may call, and whether only this machine may.

    `loopback`: requests for another name than this machine's own are refused, so that no
    foreign name that resolves to it (DNS rebinding) gets around the check of the origin.
    """

    allowed: Sequence[str] = ()
    loopback: bool = False

    def middleware(self) -> list[Middleware]:
        """Return what is put before the routes, outermost first."""
        layers = []
        if self.loopback:
            layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(_LOOPBACK)))
        layers.append(Middleware(_RefuseOtherOrigins, allowed=frozenset(self.allowed)))
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
