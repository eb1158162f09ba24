"""What every call of the standard server passes: observation, authentication, admission."""

from collections.abc import Callable
from concurrent import futures
from contextvars import ContextVar
from functools import wraps
from typing import Any

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_status import rpc_status

from mlpserve_server.errors import MetadataTooLarge, ServingError, Unauthenticated
from mlpserve_server.observability.observer import CallInfo, Metadata, Observer
from mlpserve_server.security.credentials import ScopeOf
from mlpserve_server.transport.services import MAX_METADATA_BYTES, metadata_is_too_large
from mlpserve_server.transport.status import status_of

__all__ = [
    "AdmissionInterceptor",
    "Beyond",
    "ObservingInterceptor",
    "TokenAuthInterceptor",
    "current_call",
]

# Whether a method is full, and what answers its calls then; None refuses them.
Beyond = tuple[bool, Any]
_CALL: ContextVar["_Call"] = ContextVar("call")


def current_call() -> CallInfo | None:
    """Return the call that this thread answers."""
    return _CALL.get(None)


class ObservingInterceptor(grpc.ServerInterceptor):
    """Reports every call but those of health and reflection; the outermost interceptor."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Let the call pass, to be reported at its end."""
        method = handler_call_details.method
        call = _Call(method, handler_call_details.invocation_metadata)
        handler = continuation(handler_call_details)
        if handler is None:
            self._observer.ended(call, grpc.StatusCode.UNIMPLEMENTED.value[0])
            return None
        if method.startswith("/grpc."):
            return handler
        if handler.stream_unary is None:  # a refusal, which does not wait for the request
            refusal = _observed(handler.stream_stream, call, self._observer)
            return grpc.stream_stream_rpc_method_handler(refusal)
        behaviour = _observed(handler.stream_unary, call, self._observer)
        return grpc.stream_unary_rpc_method_handler(behaviour)


class TokenAuthInterceptor(grpc.ServerInterceptor):
    """Refuses calls without a valid token, before anything of their requests is read.

    All get the same answer, also those of methods that do not exist. Health stays open: it says
    SERVING or not, and gRPC's own health checks, by which clients choose among servers, and the
    probes of orchestrators send no metadata.
    """

    def __init__(self, scope_of: ScopeOf, pool: futures.ThreadPoolExecutor) -> None:
        self._scope_of = scope_of
        self._refusal = _refuse(Unauthenticated(), pool)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Let pass or refuse."""
        call = handler_call_details
        is_open = call.method.startswith(f"/{HEALTH_SERVICE}/")
        if is_open or self._scope_of(call.invocation_metadata) is not None:
            return continuation(call)
        return self._refusal


class AdmissionInterceptor(grpc.ServerInterceptor):
    """Refuses calls with too much metadata, and those beyond the limit of their method."""

    def __init__(
        self,
        beyond: Callable[[str], Beyond],
        overloaded: ServingError,
        pool: futures.ThreadPoolExecutor,
    ) -> None:
        self._beyond = beyond
        self._overloaded = _refuse(overloaded, pool)
        self._metadata_too_large = _refuse(MetadataTooLarge(MAX_METADATA_BYTES), pool)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Let pass or refuse."""
        if metadata_is_too_large(handler_call_details.invocation_metadata):
            return self._metadata_too_large
        is_full, handler = self._beyond(handler_call_details.method)
        if is_full:
            return handler or self._overloaded
        return continuation(handler_call_details)


class _Call(CallInfo):
    """A call of the standard transport; the context comes when its turn does."""

    __slots__ = ("context",)

    def __init__(self, method: str, metadata: Metadata) -> None:
        super().__init__(method, metadata)
        self.context: grpc.ServicerContext | None = None

    def peer(self) -> str:
        """Return the caller's address; nothing for a method that does not exist."""
        return self.context.peer() if self.context else ""


def _refuse(error: ServingError, pool: futures.ThreadPoolExecutor) -> Any:
    """Return a handler that refuses with the error, on threads of their own.

    So refusals and calls that are admitted do not keep each other waiting. As a stream it need
    not wait for a request, and it is the same to all callers.
    """

    def refuse(requests: Any, context: grpc.ServicerContext) -> Any:
        context.abort_with_status(rpc_status.to_status(status_of(error)))

    vars(refuse).update(experimental_thread_pool=pool)
    return grpc.stream_stream_rpc_method_handler(refuse)


def _observed(behaviour: Callable[..., Any], call: _Call, observer: Observer) -> Callable[..., Any]:
    """Return the behaviour for this one call, which is reported at its end."""

    @wraps(behaviour)  # with its attributes: the pool that it runs on
    def observed(request: Any, context: Any) -> Any:  # the types know no code() of a context
        # Reset at the end: grpcio keeps the variables with the call, and that would be a cycle that
        # holds the request, which arrives even when it was given up, until garbage is collected.
        token = _CALL.set(call)
        call.context = context
        try:
            response = behaviour(request, context)
        except Exception:
            code = context.code() or grpc.StatusCode.UNKNOWN
            observer.ended(call, code.value[0])
            raise
        finally:
            _CALL.reset(token)
        observer.ended(call, grpc.StatusCode.OK.value[0])
        return response

    return observed
