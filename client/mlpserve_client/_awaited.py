"""The awaited transport: gRPC's asyncio stack."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from mlpserve_client import _channel, _health
from mlpserve_client._errors import ClientClosedError, ServerError
from mlpserve_client._fork import check_not_forked
from mlpserve_client._settings import Settings
from mlpserve_client._transport import Method, Request_contra, Response_co, bind


class _Started:
    def __init__(self, call: Any) -> None:
        self._call = call

    async def result(self) -> Any:
        try:
            response = await self._call
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            # Nobody cancelled the caller: its call was ended by `close`.
            raise ClientClosedError("the client was closed during the call") from error
        if response is None:  # gRPC's blocking stack raises an error here
            raise ServerError("INTERNAL: the server's answer is not a message of this call")
        return response

    def cancel(self) -> object:
        return self._call.cancel()


class AwaitedTransport:
    """Carries calls on gRPC's asyncio stack."""

    def __init__(self, settings: Settings) -> None:
        check_not_forked()
        self._settings = settings
        self._target = _channel.channel_target(settings.targets)
        self._credentials = _channel.credentials(settings.tls) if settings.tls else None
        self._metadata = _channel.metadata(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[Method[Any, Any], Any] = {}
        self._checks: dict[str, grpc.aio.Channel] = {}  # by target, those that are not in use
        self._closed = False

    async def call(
        self, method: Method[Request_contra, Response_co], request: Request_contra, timeout: float
    ) -> Response_co:
        response: Response_co = await self.start(method, request, timeout).result()
        return response

    def start(
        self, method: Method[Request_contra, Response_co], request: Request_contra, timeout: float
    ) -> _Started:
        # A channel belongs to the event loop it was made in, so it waits for the first call.
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop = loop
            self._channel = self._open(self._target, self._settings.targets, carries_calls=True)
            self._methods = bind(self._channel)
        elif self._loop is not loop:
            raise ClientClosedError("this client belongs to another event loop: make one in each")
        return _Started(
            self._methods[method](
                request, timeout=timeout, metadata=self._metadata, wait_for_ready=True
            )
        )

    async def check(self, target: str, request: bytes, timeout: float) -> bytes:
        # One that has answered is used again, since a gateway is asked every few seconds. After a
        # failure a new one shows whether the server is there now.
        channel = self._checks.pop(target, None)
        channel = channel or self._open(target, [target], carries_calls=False)
        try:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            check = channel.unary_unary(_health.METHOD)
            response = await check(request, timeout=timeout, metadata=self._metadata)
        except BaseException:
            await channel.close()
            raise
        if self._closed or target in self._checks:
            await channel.close()
        else:
            self._checks[target] = channel
        return response

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        self._closed = True
        while self._checks:
            _, channel = self._checks.popitem()
            await channel.close()
        if self._channel is not None:
            await self._channel.close()

    def _open(
        self, target: str, targets: Sequence[str], *, carries_calls: bool
    ) -> grpc.aio.Channel:
        options = _channel.options(self._settings, targets, carries_calls=carries_calls)
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, self._credentials, options)
