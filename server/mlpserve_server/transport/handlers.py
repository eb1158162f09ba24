"""How answers of the data plane become handlers of grpcio: read, admitted, run on a pool, mapped.

Requests are read by ourselves, as streams of one message, so that what is being read, computed
and sent is known: what holds too much memory is given up, and what is computed delays a stop.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_status import rpc_status

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.feedback import FeedbackDesk
from mlpserve_server.dataplane.predictions import DataPlane, Steps, complete
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import (
    InvalidInput,
    NoFeedback,
    NotInMemory,
    Overloaded,
    Unauthenticated,
)
from mlpserve_server.security.credentials import ScopeOf, SourceOf
from mlpserve_server.security.scope import ALL, Scope
from mlpserve_server.transport.call_pool import CallPool, Turn
from mlpserve_server.transport.health import Health
from mlpserve_server.transport.interceptors import current_call
from mlpserve_server.transport.services import COPIES, SMALL_BYTES
from mlpserve_server.transport.status import status_of
from mlpserve_server.transport.turns import Turns

__all__ = [
    "Behaviour",
    "Handler",
    "ReadScope",
    "map_errors",
    "pooled_handler",
    "predict",
    "report",
    "run_to_end",
    "scope_reader",
    "scoped",
    "small",
    "too_many",
    "watch_handler",
    "without_context",
]

T = TypeVar("T")
Behaviour = Callable[[bytes, grpc.ServicerContext, Turn], bytes]
# Admits a call by its request while the context lasts, which gives its model; raises Overloaded.
Admit = Callable[[bytes], AbstractContextManager[str]]
_ANY: AbstractContextManager[str] = nullcontext("")
ReadScope = Callable[[grpc.ServicerContext], Scope]
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


def too_many() -> Overloaded:
    """Return the refusal of a call that would have to wait for too long."""
    return Overloaded("too many calls are waiting")


def pooled_handler(
    answer: Behaviour,
    pool: CallPool,
    reserved: int = 0,
    admit: Admit = lambda request: _ANY,
    turns: Turns | None = None,
    limit: int | None = None,
) -> Handler:
    """Return a handler that answers one request, read by the pool's threads.

    Args:
        answer: Gives the response; an exception becomes a status.
        pool: Where it runs.
        reserved: The bytes to reserve while a request is being read.
        admit: Admits a call by its request, for as long as it is answered.
        turns: Where it waits until it is computed; None for those of the pool.
        limit: The bytes that a compressed request may become; None for the largest request.

    """

    def run(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        request = pool.reads.read(requests, context, reserved, limit)
        held = COPIES * len(request) if len(request) > SMALL_BYTES else 0
        with admit(request) as model, pool.holding(held):
            try:
                with pool.computes(context, turns or pool.turns, model) as turn:
                    response = answer(request, context, turn)
            except NotInMemory:  # and the store may take its time, or hang
                with pool.loads(context) as turn:
                    response = answer(request, context, turn)
        pool.watch_sending(context, response)
        return response

    behaviour = map_errors(run)
    vars(behaviour).update(experimental_thread_pool=pool)  # where grpcio looks for it
    # No serializers: the data plane takes and gives bytes.
    handler: Handler = grpc.stream_unary_rpc_method_handler(behaviour)
    return handler


def watch_handler(health: Health, pool: CallPool) -> Handler:
    """Return the handler of Health.Watch, whose requests are read by the pool's threads."""

    def run(
        requests: Iterator[bytes], context: grpc.ServicerContext, send: Callable[..., None]
    ) -> None:
        health.watch(small(pool.reads.read(requests, context, 0, SMALL_BYTES)), context, send)

    behaviour = map_errors(run)
    # With these grpcio passes `send`, and keeps no thread until the call ends.
    attributes = {"experimental_thread_pool": pool, "experimental_non_blocking": True}
    vars(behaviour).update(attributes)
    handler: Handler = grpc.stream_stream_rpc_method_handler(behaviour)
    return handler


def map_errors(answer: Callable[..., T]) -> Callable[..., T]:
    """Return the behaviour with every error turned into a status."""

    def behaviour(requests: Any, context: grpc.ServicerContext, *more: Any) -> T:
        try:
            return answer(requests, context, *more)
        except Exception as error:
            status = rpc_status.to_status(status_of(error, current_call()))
        context.abort_with_status(status)
        raise AssertionError("abort_with_status always raises")

    return behaviour


def without_context(answer: Callable[[bytes], bytes]) -> Behaviour:
    """Return a behaviour that needs to know nothing of the call, and takes small requests."""
    return lambda request, context, turn: answer(small(request))


def small(request: bytes) -> bytes:
    """Return the request of a method that takes names and numbers; raise InvalidInput if large."""
    if len(request) > SMALL_BYTES:
        raise InvalidInput("", f"a request of {len(request)} bytes, expected at most {SMALL_BYTES}")
    return request


def scope_reader(scope_of: ScopeOf | None) -> ReadScope:
    """Return what gives the scope of a call; it raises Unauthenticated for a withdrawn token.

    The interceptor that admits calls sees no context on which it could leave what it found.
    """
    if scope_of is None:
        return lambda context: ALL

    def read(context: grpc.ServicerContext) -> Scope:
        scope = scope_of(context.invocation_metadata())
        if scope is None:
            raise Unauthenticated
        return scope

    return read


def scoped(answer: Callable[[bytes, Scope], bytes], scope: ReadScope) -> Behaviour:
    """Return a behaviour that needs to know what the caller may use, and takes small requests."""
    return lambda request, context, turn: answer(small(request), scope(context))


def run_to_end(answer: Callable[..., Steps], scope: ReadScope) -> Behaviour:
    """Return a behaviour that takes all steps of an answer while its caller waits."""

    def behaviour(request: bytes, context: grpc.ServicerContext, turn: Turn) -> bytes:
        steps = answer(request, turn.may_load, scope(context))
        return _noted(complete(steps, turn.goes_on))

    return behaviour


def report(desk: FeedbackDesk | None, source_of: SourceOf, scope: ReadScope) -> Behaviour:
    """Return the behaviour of Report."""

    def behaviour(request: bytes, context: grpc.ServicerContext, turn: Turn) -> bytes:
        if desk is None:
            raise NoFeedback()
        source = source_of(context.invocation_metadata())
        steps = desk.report(request, source, scope(context))
        return _noted(complete(steps, turn.goes_on))

    return behaviour


def predict(data: DataPlane, limits: Limits, scope: ReadScope) -> Behaviour:
    """Return the behaviour of Predict."""

    def behaviour(request: bytes, context: grpc.ServicerContext, turn: Turn) -> bytes:
        scopes = [scope(context)]
        began = time.thread_time()
        (answer,) = data.predict([request], turn.may_load, scopes)
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
        call.rows, call.version, call.model = result.rows, result.version, result.model
    return result.response
