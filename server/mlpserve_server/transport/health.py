"""grpc.health.v1, without a lock held while something is sent.

The servicer of grpcio-health-checking sends to watchers under the lock that its end-of-call
callback needs too; sending waits for grpcio's serving thread, which may be in that callback:
a Watch that is cancelled at the wrong moment stops the whole server for good.
"""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from mlpserve_server.dataplane import codec
from mlpserve_server.errors import ModelNotFound, Overloaded, UnknownService
from mlpserve_server.transport.pools import PatientPool

__all__ = ["NOT_SERVING", "SERVING", "Health"]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# Of all connections; each Watch takes 22 KiB.
_MAX_WATCHES = 4096
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The status of each service; "" is this server's own, and SERVING from the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for look-ups only
        self._status: dict[str, Any] = {"": SERVING}
        self._watchers: dict[_Watcher, None] = {}  # in the order of their arrival
        # For new watches and changes of status; a watcher that only waits takes no thread.
        self.watch_pool = PatientPool("watch")

    def set(self, service: str, status: Any) -> None:
        """Change a service's status and notify its watchers, without waiting for them."""
        self._change(service, status)

    def _change(self, service: str, status: Any) -> None:
        with self._lock:
            self._status[service] = status
            if status == _UNKNOWN:
                del self._status[service]
            watchers = [w for w in self._watchers if w.service == service]
        for watcher in watchers:
            self.watch_pool.submit(watcher.notify, self._status_of)

    def remove(self, service: str) -> None:
        """Remove a service; its watchers are sent SERVICE_UNKNOWN."""
        self._change(service, _UNKNOWN)

    def end_watches(self) -> None:
        """End every Watch: clients ask again where calls are answered."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            self.watch_pool.submit(watcher.end, self._status_of)

    def serving(self, service: str) -> bool:
        """Whether the service's status is SERVING."""
        return bool(self._status_of(service) == SERVING)

    def close(self) -> None:
        """End the threads; the server must have stopped."""
        self.watch_pool.shutdown(wait=False, cancel_futures=True)

    def check(self, request: bytes) -> bytes:
        """Answer a HealthCheckRequest, both as bytes; raises UnknownService or ModelNotFound.

        Servers that know no services of single models never say ModelNotFound: clients tell by it
        that this one does.
        """
        service = _service(request)
        status = self._status_of(service)
        if status == _UNKNOWN:
            _, slash, model = service.partition("/")
            raise ModelNotFound(f"no model {model[:63]!r} is served") if slash else UnknownService()
        return _response(status)

    def watch(
        self, request: bytes, context: grpc.ServicerContext, send: Callable[[bytes | None], None]
    ) -> None:
        """Send the status now and whenever it changes, until the call ends; `send` may block.

        Raises:
            Overloaded: there are too many, and no connection has more than this one.

        """
        watcher = _Watcher(
            _service(request), context, send, lambda: self.watch_pool.waits_for(context)
        )
        with self._lock:
            displaced = self._displaced_by(watcher)
            self._watchers[watcher] = None
        if displaced:
            displaced.context.cancel()
        if context.add_callback(lambda: self._remove(watcher)):
            self.watch_pool.submit(watcher.notify, self._status_of)
        else:  # the call has ended already
            self._remove(watcher)

    def _remove(self, watcher: "_Watcher") -> None:
        with self._lock:
            self._watchers.pop(watcher, None)

    def _displaced_by(self, watcher: "_Watcher") -> "_Watcher | None":
        """Return the last Watch of the connection with the most if there are too many."""
        if len(self._watchers) < _MAX_WATCHES:
            return None
        counts = Counter(each.context.peer() for each in self._watchers)
        peer, count = counts.most_common(1)[0]
        if counts[watcher.context.peer()] >= count - 1:
            raise Overloaded("too many watches are open")
        last = next(each for each in reversed(self._watchers) if each.context.peer() == peer)
        del self._watchers[last]
        return last

    def _status_of(self, service: str) -> Any:
        with self._lock:
            return self._status.get(service, _UNKNOWN)


class _Watcher:
    """One Watch: it is sent each status that differs from the one before."""

    def __init__(
        self,
        service: str,
        context: grpc.ServicerContext,
        send: Callable[[bytes | None], None],
        waits: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.service = service
        self.context = context
        self._send = send
        self._waits = waits
        self._last: Any = None
        self._ended = False
        self._lock = threading.Lock()  # one message at a time, in order

    def notify(self, status_of: Callable[[str], Any]) -> None:
        # The lock is waited for too: a message before may not have been read.
        with self._waits(), self._lock:
            self._send_new(status_of(self.service))

    def end(self, status_of: Callable[[str], Any]) -> None:
        """End the Watch; the status comes first, since a notification may run on another thread."""
        with self._waits(), self._lock:
            self._send_new(status_of(self.service))
            if not self._ended:
                self._ended = True
                self._send(None)

    def _send_new(self, status: Any) -> None:
        if status != self._last and not self._ended:
            self._last = status
            self._send(_response(status))


def _service(request: bytes) -> str:
    return str(codec.parse(health_pb2.HealthCheckRequest, request).service)


def _response(status: Any) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())
