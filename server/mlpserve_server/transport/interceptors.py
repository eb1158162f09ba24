"""How the standard transport tells its observer of each call."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

import grpc

from mlpserve_server.observability.observer import CallInfo, Metadata, Observer

__all__ = ["Observing", "current_call"]

_CALL: ContextVar["_Call"] = ContextVar("call")


def current_call() -> CallInfo | None:
    """The call that this thread answers."""
    return _CALL.get(None)


class Observing(grpc.ServerInterceptor):
    """Tells of every call but those of health and reflection; the outermost interceptor."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Let the call pass, to be told of at its end."""
        method = handler_call_details.method
        call = _Call(method, handler_call_details.invocation_metadata)
        handler = continuation(handler_call_details)
        if handler is None:
            self._observer.ended(call, grpc.StatusCode.UNIMPLEMENTED.value[0])
            return None
        if method.startswith("/grpc."):
            return handler
        if handler.unary_unary is None:  # a refusal, which does not wait for the request
            refusal = _told(handler.stream_stream, call, self._observer)
            return grpc.stream_stream_rpc_method_handler(refusal)
        return grpc.unary_unary_rpc_method_handler(
            _told(handler.unary_unary, call, self._observer),
            handler.request_deserializer,
            handler.response_serializer,
        )


class _Call(CallInfo):
    """A call of the standard transport; the context comes when its turn does."""

    __slots__ = ("context",)

    def __init__(self, method: str, metadata: Metadata) -> None:
        super().__init__(method, metadata)
        self.context: grpc.ServicerContext | None = None

    def peer(self) -> str:
        """Who called; nothing for a method that does not exist."""
        return self.context.peer() if self.context else ""


def _told(behaviour: Callable[..., Any], call: _Call, observer: Observer) -> Callable[..., Any]:
    """The behaviour for this one call, which the observer hears of at its end."""

    @wraps(behaviour)  # with its attributes: the pool that it runs on
    def told(request: Any, context: Any) -> Any:  # the types know no code() of a context
        _CALL.set(call)
        call.context = context
        try:
            response = behaviour(request, context)
        except Exception:
            code = context.code() or grpc.StatusCode.UNKNOWN
            observer.ended(call, code.value[0])
            raise
        observer.ended(call, grpc.StatusCode.OK.value[0])
        return response

    return told
