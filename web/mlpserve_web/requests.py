"""Reading requests: the caller's client, and the body within its limits."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mlpserve_client import AsyncClient
from mlpserve_web.errors import HttpError
from mlpserve_web.upstream import Upstream

__all__ = [
    "Body", "Calling", "ClientEndpoint", "Endpoint", "Limits",
    "bearer_token", "body_reader", "calling_by", "number",
]  # fmt: skip

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
# An endpoint that gets the client which calls the model servers as the caller.
ClientEndpoint: TypeAlias = Callable[[Request, AsyncClient], Awaitable[Response]]
Calling: TypeAlias = Callable[[ClientEndpoint], Endpoint]
Body: TypeAlias = Callable[[Request], Awaitable[bytes]]

# Bodies beyond that are taken in turns: parsed, 12 MB of JSON stop the event loop for a second.
_LARGE_BYTES = 64 << 10
# What a header of a call to the model servers can carry; these take 16 KiB of headers in all.
_TOKEN = re.compile(r"[!-~]{1,8192}")


class Limits(NamedTuple):
    """What requests may take.

    Attributes:
        body_bytes: of one request's body.
        body_seconds: until these are there.
        all_bytes: of all bodies and answers in memory; 0 for a part of the memory.
    """

    body_bytes: int
    body_seconds: float
    all_bytes: int = 0


def calling_by(upstream: Upstream) -> Calling:
    """Return a decorator that makes an endpoint of a function that needs the caller's client."""

    def calling(answer: ClientEndpoint) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            async with upstream.client(bearer_token(request)) as client:
                return await answer(request, client)

        return endpoint

    return calling


def body_reader(limits: Limits) -> Body:
    """Return a function that reads a body.

    It raises HttpError for a body that is too large, late, cut off or compressed, or that does not
    fit into memory beside those of other requests. What is done with a large one takes long: one
    is returned in each turn of the event loop, so that others are answered in between.
    """
    turns = asyncio.Lock()

    async def body(request: Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise HttpError(415, "a compressed body, expected it as it is")
        try:
            async with asyncio.timeout(limits.body_seconds):
                data = await _joined(request, limits.body_bytes)
        except ClientDisconnect as error:
            raise HttpError(400, "the body was cut off") from error
        except TimeoutError as error:
            message = f"the body did not come within {limits.body_seconds:g} seconds"
            raise HttpError(408, message) from error
        if len(data) > _LARGE_BYTES:
            async with turns:
                await asyncio.sleep(0)
        return data

    return body


async def _joined(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise HttpError(413, f"a body of more than {limit} bytes")
        request.state.take(len(part))
        parts.append(part)
    return b"".join(parts)


def number(text: str) -> int | None:
    """Return what plain digits say, or None if the text is anything else or has 19 and more."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def bearer_token(request: Request) -> str | None:
    """Return the caller's token, None without one; raises HttpError for what cannot be one."""
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
