"""Reading requests: the caller's client, and the body within its limits."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from mlpserve_client import AsyncClient
from mlpserve_model.process.memory import usable_memory
from mlpserve_web.errors import HttpError
from mlpserve_web.upstream import Upstream

__all__ = [
    "Answer", "Body", "Calling", "Endpoint", "Limits", "Memory",
    "body_reader", "calling_by", "number",
]  # fmt: skip

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
# An endpoint that gets the client which calls the model servers as the caller.
Answer: TypeAlias = Callable[[Request, AsyncClient], Awaitable[Response]]
Calling: TypeAlias = Callable[[Answer], Endpoint]
# Reads a request's body, which counts as in memory until the context ends.
Body: TypeAlias = Callable[[Request], AbstractAsyncContextManager[bytes]]

# What a header of a call to the model servers can carry; these take 16 KiB of headers in all.
_TOKEN = re.compile(r"[!-~]{1,8192}")


# Bodies take this part of the memory at most: parsed, their numbers take ten times as much.
_SHARE_OF_MEMORY = 16


class Limits(NamedTuple):
    """What one request may take: bytes of its body, and seconds until these are there."""

    body_bytes: int
    body_seconds: float


def calling_by(upstream: Upstream) -> Calling:
    """Return a decorator that makes an endpoint of a function that needs the caller's client."""

    def calling(answer: Answer) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            async with upstream.client(_token(request)) as client:
                return await answer(request, client)

        return endpoint

    return calling


def body_reader(limits: Limits) -> Body:
    """Return a function that reads a body; HttpError if it is too large, late or compressed.

    It also refuses bodies that would not fit into memory beside those of other requests.
    """
    memory = Memory(max(limits.body_bytes, usable_memory() // _SHARE_OF_MEMORY))

    @asynccontextmanager
    async def body(request: Request) -> AsyncIterator[bytes]:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise HttpError(415, "a compressed body, expected it as it is")
        with memory.account() as take:
            try:
                async with asyncio.timeout(limits.body_seconds):
                    data = await _joined(request, limits.body_bytes, take)
            except TimeoutError as error:
                message = f"the body did not come within {limits.body_seconds:g} seconds"
                raise HttpError(408, message) from error
            yield data

    return body


class Memory:
    """The bytes of all bodies in memory, of which there may be so many."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._held = 0

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts bytes as held until the context ends.

        It raises HttpError if they are too many.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self._held + size > self._maximum:
                raise HttpError(503, "the requests in progress take all the memory that they may")
            self._held += size
            mine += size

        try:
            yield take
        finally:
            self._held -= mine


async def _joined(request: Request, limit: int, take: Callable[[int], None]) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise HttpError(413, f"a body of more than {limit} bytes")
        take(len(part))
        parts.append(part)
    return b"".join(parts)


def number(text: str) -> int | None:
    """Return what plain digits say, or None if the text is anything else or has 19 and more."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _token(request: Request) -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, rest = header.partition(" ")
    token = rest.strip()
    if scheme.lower() != "bearer" or not token:
        raise HttpError(401, "expected Authorization: Bearer TOKEN")
    if not _TOKEN.fullmatch(token):
        raise HttpError(
            401, "the token is not one: expected up to 8192 characters of ASCII without spaces"
        )
    return token
