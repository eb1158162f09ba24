"""The model servers behind the gateway: one client for each token that callers bring.

A caller's bearer token is passed on, so the servers' own token file decides who may call.
Each client has connections of its own, so a few are kept, those that were used last.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mlpserve_client import AsyncClient

__all__ = ["Upstream"]

# Clients without a call in flight that are kept for the next one.
MAX_IDLE = 64


@dataclass(slots=True)
class _Shared:
    client: AsyncClient
    calls: int = 0


class Upstream:
    """Gives each token its client; `connect` makes one for a token, or for none."""

    def __init__(self, connect: Callable[[str | None], AsyncClient]) -> None:
        self._connect = connect
        self._clients: dict[str | None, _Shared] = {}  # the one used last comes last

    @asynccontextmanager
    async def client(self, token: str | None) -> AsyncIterator[AsyncClient]:
        """Lend the client that calls with this token.

        Raises:
            SettingsError: the token cannot be sent in a header.
        """
        shared = self._clients.pop(token, None) or _Shared(self._connect(token))
        self._clients[token] = shared
        shared.calls += 1
        try:
            yield shared.client
        finally:
            shared.calls -= 1
            await self._close_unused()

    async def close(self) -> None:
        """Close all clients; calls in flight end with ClientClosedError."""
        while self._clients:
            _, shared = self._clients.popitem()
            await shared.client.close()

    async def _close_unused(self) -> None:
        idle = [token for token, shared in self._clients.items() if not shared.calls]
        # All taken out before the first is awaited: meanwhile others lend and close too.
        unused = [self._clients.pop(token) for token in idle[: max(0, len(idle) - MAX_IDLE)]]
        for shared in unused:
            await shared.client.close()
