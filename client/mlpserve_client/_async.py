"""The client that is awaited: `Client` with `await`, nothing else."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from mlpserve_client import _channel, _health
from mlpserve_client._batches import Batches
from mlpserve_client._calls import Core
from mlpserve_client._errors import ClientClosedError
from mlpserve_client._fork import check_not_forked
from mlpserve_client._messages import selector
from mlpserve_client._results import BatchPrediction, ModelVersion, Prediction
from mlpserve_client._settings import Settings, Tls, resolve
from mlpserve_client._transport import Method, Request_contra, Response_co, bind

if TYPE_CHECKING:
    from mlpserve_client._inputs import Instance, Instances


class AsyncClient:
    """Calls mlpserve servers from asyncio code.

    The same arguments, results and errors as `Client`. One client is meant to be shared by
    all tasks of one event loop. Use it with `async with`, or await `close`.

    Args:
        target: as for `Client`.
        timeout: as for `Client`.
        tls: as for `Client`.
        token: as for `Client`.

    Raises:
        SettingsError: a setting makes no sense.
        ConnectionFailedError: several targets were given, and none of them has an address.

    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        settings = resolve(os.environ, target=target, timeout=timeout, tls=tls, token=token)
        self._transport = _Awaited(settings)
        self._core = Core(self._transport, settings)
        self._batches = Batches(self._core)

    async def predict(
        self,
        instance: "Instance",
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Classify one instance, as `Client.predict`."""
        return await self._core.predict(instance, selector(version, alias), timeout)

    async def predict_batch(
        self,
        instances: "Instances",
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> BatchPrediction:
        """Classify any number of instances by one version, as `Client.predict_batch`."""
        chosen = selector(version, alias)
        return await self._batches.predict_batch(instances, chosen, timeout)

    def predict_stream(
        self,
        instances: "Iterable[Instance] | AsyncIterable[Instance]",
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
        batch_size: int = 256,
    ) -> AsyncIterator[Prediction]:
        """Classify instances as they come, as `Client.predict_stream`; use `async for`.

        `instances` may be an asynchronous iterable too.
        """
        chosen = selector(version, alias)
        return self._batches.predict_stream(instances, chosen, timeout, batch_size)

    async def model(
        self,
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> ModelVersion:
        """Describe the version being served, or the selected one, as `Client.model`."""
        return await self._core.model(selector(version, alias), timeout)

    async def models(self, *, timeout: float | None = None) -> list[ModelVersion]:
        """Describe every version in the store, newest first, as `Client.models`."""
        return await self._core.models(timeout)

    async def health(self, *, live: bool = False, timeout: float | None = None) -> bool:
        """Say whether a server is ready to predict, as `Client.health`."""
        return await self._core.health(live, timeout)

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as a server is ready to predict, as `Client.wait_until_ready`."""
        await self._core.wait_until_ready(timeout)

    async def close(self) -> None:
        """Close the connections; calls under way fail. Closing again does nothing."""
        if self._core.close():
            await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._core.where!r})"


class _Started:
    def __init__(self, call: Any) -> None:
        self._call = call

    async def result(self) -> Any:
        try:
            return await self._call
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            # Nobody cancelled the caller: its call was ended by `close`.
            raise ClientClosedError("the client was closed during the call") from error

    def cancel(self) -> object:
        return self._call.cancel()


class _Awaited:
    """Transport on gRPC's asyncio stack."""

    def __init__(self, settings: Settings) -> None:
        check_not_forked()
        self._settings = settings
        self._target = _channel.channel_target(settings.targets)
        self._credentials = _channel.credentials(settings.tls) if settings.tls else None
        self._metadata = _channel.metadata(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[Method[Any, Any], Any] = {}

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
        async with self._open(target, [target], carries_calls=False) as channel:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            check = channel.unary_unary(_health.METHOD)
            return await check(request, timeout=timeout, metadata=self._metadata)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _open(
        self, target: str, targets: Sequence[str], *, carries_calls: bool
    ) -> grpc.aio.Channel:
        options = _channel.options(self._settings, targets, carries_calls=carries_calls)
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, self._credentials, options)
