"""The memory that requests and answers take together, until the callers have read the answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlpserve_model.process.memory import usable_memory
from mlpserve_web.errors import HttpError

__all__ = ["AccountForMemory", "Memory", "Take"]

# Counts bytes as held by a request; raises HttpError if all requests hold too many.
Take: TypeAlias = Callable[[int], None]

# Bodies and answers take this part of the memory at most: parsed, numbers take ten times as much.
_SHARE_OF_MEMORY = 16
# Of each request, so that one image is classified beside any number of large batches.
_UNCOUNTED = 64 << 10


class Memory:
    """The bytes that requests hold, of which there may be `maximum` at a time."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._held = 0

    @contextmanager
    def account(self) -> Iterator[Take]:
        """Yield a function that counts bytes as held until the context ends.

        It raises HttpError if they are too many.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            counted = max(0, mine + size - _UNCOUNTED) - max(0, mine - _UNCOUNTED)
            if mine + size - _UNCOUNTED > self._maximum:
                raise HttpError(413, "more than the memory of all requests: send a smaller batch")
            if counted and self._held + counted > self._maximum:
                message = "the requests in progress take all the memory that they may"
                raise HttpError(503, message, retry_seconds=1)
            self._held += counted
            mine += size

        try:
            yield take
        finally:
            self._held -= max(0, mine - _UNCOUNTED)


class AccountForMemory:
    """Gives each request `request.state.take`; what it took is free once the answer is sent."""

    def __init__(self, app: ASGIApp, maximum: int, largest: int) -> None:
        """Bound the bytes by `maximum`, or if that is 0 by the memory, but by no less than one.

        Args:
            app: what answers.
            maximum: bytes.
            largest: bytes of the largest body.

        """
        self._app = app
        self._memory = Memory(maximum or max(largest, usable_memory() // _SHARE_OF_MEMORY))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and return when the caller has read all but what the system buffers."""

        async def send_whole(message: Message) -> None:
            # The server waits for a slow reader before it sends more, and not after the last part.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                message = {"type": "http.response.body"}
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._memory.account() as take:
            scope.setdefault("state", {})["take"] = take
            await self._app(scope, receive, send_whole)
