"""The blocking transport: gRPC's synchronous stack, and how its coroutines are run."""

import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import grpc

from mlpserve_client import _channel, _health
from mlpserve_client._errors import ClientClosedError
from mlpserve_client._fork import check_not_forked
from mlpserve_client._settings import Settings
from mlpserve_client._transport import Method, Request_contra, Response_co, bind

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, as those of a blocking transport."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking call tried to suspend")  # a fault of this package


class _Started:
    def __init__(self, future: Any) -> None:
        self._future = future

    async def result(self) -> Any:
        return self._future.result()

    def cancel(self) -> object:
        return self._future.cancel()


class BlockingTransport:
    """Carries calls on gRPC's synchronous stack."""

    def __init__(self, settings: Settings) -> None:
        check_not_forked()
        self._settings = settings
        self._credentials = _channel.credentials(settings.tls) if settings.tls else None
        self._metadata = _channel.metadata(settings)
        self._channel = self._open(
            _channel.channel_target(settings.targets), settings.targets, carries_calls=True
        )
        self._methods = bind(self._channel)
        self.close = self._channel.close

    async def call(
        self, method: Method[Request_contra, Response_co], request: Request_contra, timeout: float
    ) -> Response_co:
        try:
            response: Response_co = self._methods[method](
                request, timeout=timeout, metadata=self._metadata, wait_for_ready=True
            )
        except ValueError as error:
            _raise_if_closed(error)
            raise
        return response

    def start(
        self, method: Method[Request_contra, Response_co], request: Request_contra, timeout: float
    ) -> _Started:
        try:
            future = self._methods[method].future(
                request, timeout=timeout, metadata=self._metadata, wait_for_ready=True
            )
        except ValueError as error:
            _raise_if_closed(error)
            raise
        return _Started(future)

    async def check(self, target: str, request: bytes, timeout: float) -> bytes:
        with self._open(target, [target], carries_calls=False) as channel:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_health.METHOD)
            return check(request, timeout=timeout, metadata=self._metadata)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _open(self, target: str, targets: Sequence[str], *, carries_calls: bool) -> grpc.Channel:
        options = _channel.options(self._settings, targets, carries_calls=carries_calls)
        if self._credentials is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, self._credentials, options)


def _raise_if_closed(error: ValueError) -> None:
    """Raise ClientClosedError for what gRPC raises when another thread has closed the channel."""
    if "closed" in str(error):
        raise ClientClosedError("the client was closed during the call") from error
