"""grpc.health.v1, without a lock held while something is sent.

The servicer of grpcio-health-checking sends to watchers under the lock that its end-of-call
callback needs too; sending waits for grpcio's serving thread, which may be in that callback:
a Watch that is cancelled at the wrong moment stops the whole server for good.
"""

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["NOT_SERVING", "SERVING", "Health"]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

# Checks and changes of status; a watcher that only waits takes no thread.
_THREADS = 32


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The status of each service; "" is this server's own, and SERVING from the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for look-ups only
        self._status: dict[str, Any] = {"": SERVING}
        self._watchers: set[_Watcher] = set()
        self._pool = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="health")
        self.Check = _on(self._pool, self._check)
        self.Watch = _on(self._pool, self._watch, experimental_non_blocking=True)

    def set(self, service: str, status: Any) -> None:
        """Change a service's status and tell its watchers, without waiting for them."""
        with self._lock:
            self._status[service] = status
            watchers = [w for w in self._watchers if w.service == service]
        for watcher in watchers:
            self._pool.submit(watcher.tell, self._status_of)

    def end_watches(self) -> None:
        """End every Watch: clients ask again where calls are answered."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            self._pool.submit(watcher.end, self._status_of)

    def serving(self, service: str) -> bool:
        """Whether the service's status is SERVING."""
        return bool(self._status_of(service) == SERVING)

    def close(self) -> None:
        """End the threads; the server must have stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, request: Any, context: grpc.ServicerContext) -> Any:
        status = self._status_of(request.service)
        if status == _UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return health_pb2.HealthCheckResponse(status=status)

    def _watch(
        self,
        request: Any,
        context: grpc.ServicerContext,
        send_response_callback: Callable[[Any], None],
    ) -> None:
        watcher = _Watcher(request.service, send_response_callback)
        with self._lock:
            self._watchers.add(watcher)
        if context.add_callback(lambda: self._forget(watcher)):
            watcher.tell(self._status_of)
        else:  # the call has ended already
            self._forget(watcher)

    def _forget(self, watcher: "_Watcher") -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _status_of(self, service: str) -> Any:
        with self._lock:
            return self._status.get(service, _UNKNOWN)


class _Watcher:
    """One Watch: it is told what has changed since it was told last."""

    def __init__(self, service: str, send: Callable[[Any], None]) -> None:
        self.service = service
        self._send = send
        self._told: Any = None
        self._ended = False
        self._turn = threading.Lock()  # one message at a time, in order

    def tell(self, status_of: Callable[[str], Any]) -> None:
        with self._turn:
            self._tell(status_of(self.service))

    def end(self, status_of: Callable[[str], Any]) -> None:
        """End the Watch; what was to be told runs on another thread, perhaps later."""
        with self._turn:
            self._tell(status_of(self.service))
            if not self._ended:
                self._ended = True
                self._send(None)

    def _tell(self, status: Any) -> None:
        if status != self._told and not self._ended:
            self._told = status
            self._send(health_pb2.HealthCheckResponse(status=status))


def _on(pool: futures.ThreadPoolExecutor, method: Any, **attributes: Any) -> Any:
    """The method as a behaviour that grpcio runs on this pool, with these attributes."""

    def behaviour(*arguments: Any, **keywords: Any) -> Any:
        return method(*arguments, **keywords)

    vars(behaviour).update(experimental_thread_pool=pool, **attributes)
    return behaviour
