"""gRPC's core from Python, below grpcio's public API: this file alone touches it.

A completion queue of our own on the core server of an ordinary grpc.Server, for some of its
methods, and the calls that come out of it. Everything here belongs to one thread.
"""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import grpc

from mlpserve_server.observability.observer import CallInfo
from mlpserve_server.security.scope import Scope

__all__ = ["SUPPORTED", "CompletionQueue", "ServerCall", "end_call", "unsupported"]

# Imported by name: it has no types.
cygrpc: Any = import_module("grpc._cython.cygrpc")

# The grpcio versions that the server's tests pass with: from, and below.
SUPPORTED = ((1, 82), (1, 86))

_NO_FLAGS = 0
_OK = cygrpc.StatusCode.ok
# Without metadata it keeps nothing of the call that it is part of, so that one serves all.
_INITIAL_METADATA = cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)
_TIMEOUT = cygrpc.CompletionType.queue_timeout
_SHUTDOWN = cygrpc.CompletionType.queue_shutdown


def unsupported() -> str | None:
    """Return why this grpcio cannot be used this way, None when it can."""
    major, minor = map(int, grpc.__version__.split(".")[:2])
    if SUPPORTED[0] <= (major, minor) < SUPPORTED[1]:
        return None
    low, high = (".".join(map(str, version)) for version in SUPPORTED)
    return f"it is made for grpcio from {low} and below {high}, this is {grpc.__version__}"


def end_call(context: grpc.ServicerContext, code: int, details: str) -> None:
    """End a call of grpcio's own server with a status; from any thread, while it is read too."""
    # Private as well: what is public cancels without a status, or ends with what a handler returns.
    vars(context)["_rpc_event"].call.cancel(code, details)


class ServerCall(CallInfo):
    """One call, from its arrival to its end.

    `held` are the bytes of its request or response that count as in use, for the event loop.
    `scope` is what the caller may use; it is set where callers need tokens, and only there.
    """

    __slots__ = (
        "_call", "_on_message", "_on_sent", "_peer", "_queue", "_watched", "closed", "deadline",
        "held", "scope",
    )  # fmt: skip

    def __init__(self, event: Any, method: str, queue: "CompletionQueue") -> None:
        super().__init__(method, event.invocation_metadata)
        self._call = event.call
        self._queue = queue
        self._on_message: Callable[[ServerCall, bytes | None], None]
        self._on_sent: Callable[[ServerCall], None]
        self.deadline: float = event.call_details.deadline
        self.closed = False
        self.held = 0
        self.scope: Scope
        self._peer = ""
        self._watched = False

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more; a cancelled call is seen if watched."""
        return self.is_abandoned(time.time())

    def is_abandoned(self, now: float) -> bool:
        """Return True if nobody waits any more at this Unix time."""
        return self.closed or self.deadline < now

    def peer(self) -> str:
        """Return the caller's address."""
        if not self._peer:
            name: bytes | str = self._call.peer()
            self._peer = name if isinstance(name, str) else name.decode()
        return self._peer

    def watch(self) -> None:
        """Notice from now on when the caller hangs up."""
        if not self._watched:  # gRPC's core allows one such operation
            self._watched = True
            operations = (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
            self._start(operations, self._closed)

    def receive(self, on_message: "Callable[[ServerCall, bytes | None], None]") -> None:
        """Request the message; the callback gets its bytes, or None when none is coming."""
        self._on_message = on_message
        operations = (cygrpc.ReceiveMessageOperation(_NO_FLAGS),)
        self._start(operations, self._received)

    def answer(self, response: bytes, on_sent: "Callable[[ServerCall], None]") -> None:
        """Send the response and end the call; the callback follows when it has been sent."""
        self._on_sent = on_sent
        operations = (
            _INITIAL_METADATA,
            cygrpc.SendMessageOperation(response, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(None, _OK, b"", _NO_FLAGS),
        )
        self._start(operations, self._sent)

    def refuse(
        self, code: int, details: str, metadata: Any, on_sent: "Callable[[ServerCall], None]"
    ) -> None:
        """End the call with a status and trailing metadata."""
        self._on_sent = on_sent
        operations = (
            _INITIAL_METADATA,
            cygrpc.SendStatusFromServerOperation(metadata, code, details.encode(), _NO_FLAGS),
        )
        self._start(operations, self._sent)

    def cancel(self) -> None:
        """End the call, whatever is being sent or received."""
        self._call.cancel()

    def _start(self, operations: Sequence[Any], on_event: Callable[[Any], None]) -> None:
        # An operation on a queue that is shut down would end the process.
        if not self._queue.is_shut_down:
            self._call.start_server_batch(operations, on_event)

    def _received(self, event: Any) -> None:
        self._on_message(self, event.batch_operations[0].message())

    def _sent(self, event: Any) -> None:
        self._on_sent(self)

    def _closed(self, event: Any) -> None:
        self.closed = True


class CompletionQueue:
    """A completion queue for these methods of a server that has not started yet."""

    def __init__(self, server: grpc.Server, methods: Sequence[str]) -> None:
        # Private since grpcio began, and the same in all versions supported.
        self._core: Any = vars(server)["_state"].server
        self._queue = cygrpc.CompletionQueue()
        self.is_shut_down = self.ended = False
        self._core.register_completion_queue(self._queue)
        for method in methods:
            self._core.register_method(method)

    def accept(self, method: str, on_call: Callable[[ServerCall], None], at_once: int) -> None:
        """Give every call of a method to `on_call`; `at_once` of them may arrive together."""

        def request_call() -> None:
            try:
                self._core.request_registered_call(self._queue, self._queue, method, arrived)
            except ValueError:
                return  # the server is shutting down: no more calls

        def arrived(event: Any) -> None:
            if event.success:
                request_call()
                on_call(ServerCall(event, method, self))

        for _ in range(at_once):
            request_call()

    def poll(self, seconds: float, maximum: int, max_seconds: float) -> bool:
        """Handle events that are there.

        Args:
            seconds: How long to wait for the first one.
            maximum: How many to handle at most.
            max_seconds: How long to go on, as an event with a large message takes long.

        Returns:
            True if there may be more.

        """
        deadline = time.time() + seconds if seconds else 0.0
        until = time.monotonic() + seconds + max_seconds
        for _ in range(maximum):
            event = self._queue.poll(deadline)
            kind = event.completion_type
            if kind == _TIMEOUT:
                return False
            if kind == _SHUTDOWN:
                self.ended = True
                return False
            event.tag(event)
            event = None  # which holds a request
            deadline = 0.0
            if time.monotonic() > until:
                break
        return True

    def shut_down(self) -> None:
        """End the queue; calls that are left, reset ones for instance, start nothing more."""
        self.is_shut_down = True
        self._queue.shutdown()
