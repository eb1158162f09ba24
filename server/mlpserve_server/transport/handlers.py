"""How answers of the data plane become handlers of grpcio: read, admitted, run on a pool, mapped.

Requests are read by ourselves, as streams of one message, so that what is being read, computed
and sent is known: what holds too much memory is given up, and what is computed delays a stop.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
from grpc_status import rpc_status

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.predictions import DataPlane, Steps, complete
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import Abandoned, NoRequest, Overloaded
from mlpserve_server.transport.answers import PRESSED_SECONDS, UNREAD_SECONDS
from mlpserve_server.transport.interceptors import current_call
from mlpserve_server.transport.services import COPIES, SMALL_BYTES
from mlpserve_server.transport.status import status_of

__all__ = [
    "Behaviour",
    "CallPool",
    "Handler",
    "no_memory",
    "predict",
    "run_to_end",
    "too_many",
    "unary_handler",
    "without_context",
]

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

# A request that has been on its way for longer is not a small one.
_LONG_READ_SECONDS = 0.05
# How long a thread waits for the memory of a large request.
_MAX_WAIT_SECONDS = 10.0


def too_many() -> Overloaded:
    """Return the refusal of a call that would have to wait for too long."""
    return Overloaded("too many calls are waiting")


def no_memory() -> Overloaded:
    """Return the refusal of a call for which there is no memory."""
    return Overloaded("the requests in progress take all the memory that they may")


class CallPool(futures.ThreadPoolExecutor):
    """A thread pool that knows what has become of its calls.

    `limit` gives the number of calls that it may hold: running, waiting for a thread, or with an
    answer that their callers have not read.
    """

    def __init__(self, name: str, threads: int, limits: Limits, limit: Callable[[], int]) -> None:
        super().__init__(threads, name)
        self.open_calls = 0
        self._computing = 0
        self._limits = limits
        self._limit = limit
        self._reading: dict[grpc.ServicerContext, float] = {}  # since when
        self._sending: dict[grpc.ServicerContext, float] = {}
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether another call would be one too many."""
        return self.open_calls + len(self._sending) >= self._limit()

    @property
    def computing(self) -> bool:
        """Whether calls are waited for whose requests are here."""
        return self._computing > 0

    @property
    def busy(self) -> bool:
        """Whether it holds any call."""
        return bool(self.open_calls or self._sending)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run a call on one of the threads."""
        with self._lock:
            self.open_calls += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._done)
        return future

    def read(
        self, requests: Iterator[bytes], context: grpc.ServicerContext, can_be_given_up: bool
    ) -> bytes:
        """Return the request of a call; raises NoRequest or Abandoned when none comes."""
        if can_be_given_up:
            self._reading[context] = time.monotonic()
        try:
            request = next(requests, None)
        except grpc.RpcError:
            request = None
        finally:
            self._reading.pop(context, None)
        if request is None:
            raise NoRequest if context.is_active() else Abandoned("the caller is gone")
        return request

    @contextmanager
    def holding(self, size: int, seconds: float = 0) -> Iterator[None]:
        """Return a context in which these bytes count as in use.

        Raises:
            Overloaded: they are not free within this time.

        """
        if size and not self._limits.bytes.take(size, seconds):
            raise no_memory()
        try:
            yield
        finally:
            self._limits.bytes.release(size)

    @contextmanager
    def computes(self) -> Iterator[None]:
        """Return a context in which a call delays a stop."""
        with self._lock:
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1

    def watch_sending(self, context: grpc.ServicerContext, response: bytes) -> None:
        """Count the response as in use until its caller has read it or is gone."""
        size = len(response) if len(response) > SMALL_BYTES else 0
        self._limits.bytes.add(size)
        self._sending[context] = time.monotonic()

        def sent() -> None:
            self._sending.pop(context, None)
            self._limits.bytes.release(size)

        if not context.add_callback(sent):
            sent()

    def give_up(self, pressed: bool) -> None:
        """Cancel calls whose answers are not read, and under pressure those that are being read."""
        now = time.monotonic()
        unread = PRESSED_SECONDS if pressed or self.full else UNREAD_SECONDS
        late = [c for c, since in list(self._sending.items()) if now - since > unread]
        if pressed:
            reading = list(self._reading.items())
            late += [c for c, since in reading if now - since > _LONG_READ_SECONDS]
        for context in late:
            context.cancel()

    def _done(self, _: futures.Future[Any]) -> None:
        with self._lock:
            self.open_calls -= 1


def unary_handler(answer: Behaviour, pool: CallPool, reserved: int = 0) -> Handler:
    """Return a handler that answers one request, read by the pool's threads.

    Args:
        answer: Gives the response; an exception becomes a status.
        pool: Where it runs.
        reserved: The bytes to reserve while a request is being read.

    """

    def run(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        with pool.holding(reserved, _MAX_WAIT_SECONDS):
            request = pool.read(requests, context, can_be_given_up=not reserved)
        held = COPIES * len(request) if len(request) > SMALL_BYTES else 0
        with pool.holding(held), pool.computes():
            response = answer(request, context)
        pool.watch_sending(context, response)
        return response

    behaviour = map_errors(run)
    vars(behaviour).update(experimental_thread_pool=pool)  # where grpcio looks for it
    # No serializers: the data plane takes and gives bytes.
    handler: Handler = grpc.stream_unary_rpc_method_handler(behaviour)
    return handler


def map_errors(answer: Callable[..., bytes]) -> Callable[..., bytes]:
    """Return the behaviour with every error turned into a status."""

    def behaviour(requests: Any, context: grpc.ServicerContext) -> bytes:
        try:
            return answer(requests, context)
        except Exception as error:
            status = rpc_status.to_status(status_of(error, current_call()))
        context.abort_with_status(status)
        raise AssertionError("abort_with_status always raises")

    return behaviour


def without_context(answer: Callable[[bytes], bytes]) -> Behaviour:
    """Return a behaviour that needs to know nothing of the call."""
    return lambda request, context: answer(request)


def run_to_end(answer: Callable[[bytes], Steps]) -> Behaviour:
    """Return a behaviour that takes all steps of an answer while its caller waits."""
    return lambda request, context: _noted(complete(answer(request), context.is_active))


def predict(data: DataPlane, limits: Limits) -> Behaviour:
    """Return the behaviour of Predict."""

    def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
        began = time.thread_time()
        (answer,) = data.predict([request])
        limits.queue.record(1, time.thread_time() - began)
        if isinstance(answer, Result):
            return _noted(answer)
        try:
            raise answer
        finally:
            del answer  # a cycle with the frame, which holds the request

    return behaviour


def _noted(result: Result) -> bytes:
    """Return the response, and leave on the call what an observer wants to know of it."""
    if call := current_call():
        call.rows, call.version = result.rows, result.version
    return result.response
