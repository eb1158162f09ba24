"""The client that blocks."""

import os
import time
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

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

T = TypeVar("T")


class Client:
    """Calls mlpserve servers and blocks until they answer.

    One client is meant to be shared: it is safe to use from many threads, connects when it
    is first used and keeps its connections. Use it as a context manager, or call `close`.

    What is not given comes from the environment (`MLPSERVE_TARGET`, `MLPSERVE_TIMEOUT`,
    `MLPSERVE_TLS`, `MLPSERVE_TLS_CA`, `MLPSERVE_TLS_CERT`, `MLPSERVE_TLS_KEY`,
    `MLPSERVE_TLS_SERVER_NAME`, `MLPSERVE_TOKEN`, `MLPSERVE_TOKEN_FILE`).

    Every call waits for a server that is ready, moves to another one when a server stops,
    and is sent again when that is safe, all within its timeout.

    Args:
        target: where the servers are: `host:port`, a `dns:///name:port` with many addresses,
            `unix:/path`, or a list of hosts, which are looked up once; calls go to all of
            them in turn. Default `localhost:50051`.
        timeout: seconds that each request may take; default 10.
        tls: how to encrypt; None for plain text.
        token: a bearer token to send along; needs TLS beyond this machine.

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
        self._transport = _Blocking(settings)
        self._core = Core(self._transport, settings)
        self._batches = Batches(self._core)
        # At the interpreter's exit too, while gRPC's threads can still be stopped in order.
        self._finalizer = weakref.finalize(self, _close, self._core, self._transport)

    def predict(
        self,
        instance: "Instance",
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Classify one instance.

        Args:
            instance: an array or nested lists of any shape with as many values as the model
                takes. uint8 and other integers are raw, 0 to the model's maximum (255 for
                MNIST); floats and booleans are scaled, 0 to 1. Or a Pillow image, or the path
                of a PNG or JPEG: it is made to fit the model's input shape, and inverted when
                its background is light.
            version: ask this version instead of the one being served.
            alias: ask the version that this alias points at.
            timeout: seconds, instead of the client's.

        Raises:
            InvalidInputError: the input does not fit the model.
            ModelNotFoundError, ModelRejectedError: about `version` and `alias`.
            MlpserveError: no answer; which of its children it is says why.

        """
        return run(self._core.predict(instance, selector(version, alias), timeout))

    def predict_batch(
        self,
        instances: "Instances",
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> BatchPrediction:
        """Classify any number of instances, all by one version.

        They are split into requests under the server's limits, a few at a time; every one is
        pinned to the version that answered the first.

        Args:
            instances: `[n, ...]` with values as for `predict`, or a list of images or paths.
            version: ask this version instead of the one being served.
            alias: ask the version that this alias points at.
            timeout: seconds that each request may take, instead of the client's.

        Raises:
            MlpserveError: as for `predict`; then there is no answer at all.

        """
        return run(self._batches.predict_batch(instances, selector(version, alias), timeout))

    def predict_stream(
        self,
        instances: "Iterable[Instance]",
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
        batch_size: int = 256,
    ) -> Iterator[Prediction]:
        """Classify instances as they come, in order, holding only a few batches of them.

        Reads ahead by a few times `batch_size`. A long stream follows the server from version
        to version; each answer names its own. Pass `version` to stay with one.

        Args:
            instances: any iterable of what `predict` takes, endless ones too.
            version: ask this version instead of the one being served.
            alias: ask the version that this alias points at.
            timeout: seconds that each request may take, instead of the client's.
            batch_size: instances sent in one request, at most.

        Raises:
            MlpserveError: as for `predict`, once the answers before it were given.

        """
        chosen = selector(version, alias)
        answers = self._batches.predict_stream(instances, chosen, timeout, batch_size)
        try:
            while True:
                try:
                    answer = run(answers.__anext__())
                except StopAsyncIteration:
                    return
                yield answer
        finally:
            run(answers.aclose())

    def model(
        self,
        *,
        version: int | None = None,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> ModelVersion:
        """Describe the version being served, or the selected one.

        Raises:
            ModelNotFoundError: there is no such version or alias.
            MlpserveError: no answer, as for `predict`.

        """
        return run(self._core.model(selector(version, alias), timeout))

    def models(self, *, timeout: float | None = None) -> list[ModelVersion]:
        """Describe every version in the store, newest first.

        Raises:
            MlpserveError: no answer, as for `predict`.

        """
        return run(self._core.models(timeout))

    def health(self, *, live: bool = False, timeout: float | None = None) -> bool:
        """Say whether a server is ready to predict; of several targets, whether any is.

        Args:
            live: ask instead whether it is alive, with a model to serve or not.
            timeout: seconds, instead of the client's.

        Raises:
            ConnectionFailedError: no server answers at all.
            UnauthenticatedError: it wants credentials.

        """
        return run(self._core.health(live, timeout))

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return as soon as a server is ready to predict.

        Args:
            timeout: seconds, instead of the client's.

        Raises:
            NotReadyError: a server is alive, but it has nothing to serve.
            ConnectionFailedError: no server answers.

        """
        run(self._core.wait_until_ready(timeout))

    def close(self) -> None:
        """Close the connections; calls under way fail. Closing again does nothing."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._core.where!r})"


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


class _Blocking:
    """Transport on gRPC's synchronous stack."""

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
        with _closing_translated():
            response: Response_co = self._methods[method](
                request, timeout=timeout, metadata=self._metadata, wait_for_ready=True
            )
        return response

    def start(
        self, method: Method[Request_contra, Response_co], request: Request_contra, timeout: float
    ) -> _Started:
        with _closing_translated():
            future = self._methods[method].future(
                request, timeout=timeout, metadata=self._metadata, wait_for_ready=True
            )
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


@contextmanager
def _closing_translated() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        # What gRPC raises when another thread has closed the channel just now.
        if "closed" not in str(error):
            raise
        raise ClientClosedError("the client was closed during the call") from error


def _close(core: Core, transport: _Blocking) -> None:
    if core.close():
        transport.close()
