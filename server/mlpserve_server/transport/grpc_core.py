"""gRPC's core from Python, below grpcio's public API: this file alone touches it.

A completion queue of our own on the core server of an ordinary grpc.Server, for some of its
methods, and the calls that come out of it. Everything here belongs to one thread.
"""

import re
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import grpc

from mlpserve_server.observability.observer import CallInfo

__all__ = ["SUPPORTED", "Call", "Queue", "unsupported"]

# Imported by name: it has no types.
cygrpc: Any = import_module("grpc._cython.cygrpc")

# The grpcio versions that the server's tests pass with: from, and below.
SUPPORTED = ((1, 74), (1, 86))

_NO_FLAGS = 0
_TIMEOUT = cygrpc.CompletionType.queue_timeout
_SHUTDOWN = cygrpc.CompletionType.queue_shutdown


def unsupported() -> str | None:
    """Why this grpcio cannot be used this way, or None when it can."""
    found = tuple(map(int, re.findall(r"\d+", grpc.__version__)[:2]))
    if SUPPORTED[0] <= found < SUPPORTED[1]:
        return None
    low, high = (".".join(map(str, version)) for version in SUPPORTED)
    return f"it is made for grpcio from {low} and below {high}, this is {grpc.__version__}"


class Call(CallInfo):
    """One call, from its arrival to its end."""

    __slots__ = ("_call", "_then", "_watched", "closed", "deadline")

    def __init__(self, event: Any, method: str) -> None:
        super().__init__(method, event.invocation_metadata)
        self._call = event.call
        self._then: Callable[[Call, bytes | None], None]
        self.deadline: float = event.call_details.deadline
        self.closed = False
        self._watched = False

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more; a cancelled call tells if watched."""
        return self.closed or self.deadline < time.time()

    def peer(self) -> str:
        """Who called."""
        name: bytes | str = self._call.peer()
        return name if isinstance(name, str) else name.decode()

    def watch(self) -> None:
        """Notice from now on when the caller hangs up."""
        if not self._watched:  # gRPC's core lets ask once
            self._watched = True
            operations = (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
            self._call.start_server_batch(operations, self._on_closed)

    def receive(self, then: "Callable[[Call, bytes | None], None]") -> None:
        """Ask for the request; `then` gets its bytes, or None when the caller is gone."""
        self._then = then
        operations = (cygrpc.ReceiveMessageOperation(_NO_FLAGS),)
        self._call.start_server_batch(operations, self._on_received)

    def answer(self, response: bytes) -> None:
        """Send the response and end the call."""
        self._end(None, cygrpc.StatusCode.ok, b"", cygrpc.SendMessageOperation(response, _NO_FLAGS))

    def refuse(self, code: int, details: str, metadata: Any) -> None:
        """End the call with a status and trailing metadata."""
        self._end(metadata, code, details.encode())

    def _end(self, metadata: Any, code: int, details: bytes, *message: Any) -> None:
        operations = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            *message,
            cygrpc.SendStatusFromServerOperation(metadata, code, details, _NO_FLAGS),
        )
        self._call.start_server_batch(operations, _nothing)

    def _on_received(self, event: Any) -> None:
        self._then(self, event.batch_operations[0].message())

    def _on_closed(self, event: Any) -> None:
        self.closed = True


class Queue:
    """A completion queue for these methods of a server that has not started yet."""

    def __init__(self, server: grpc.Server, methods: Sequence[str]) -> None:
        # Private since grpcio began, and the same in all versions supported.
        self._core: Any = vars(server)["_state"].server
        self._queue = cygrpc.CompletionQueue()
        self.ended = False
        self._core.register_completion_queue(self._queue)
        for method in methods:
            self._core.register_method(method)

    def hand_over(self, method: str, on_call: Callable[[Call], None], at_once: int) -> None:
        """Give every call of a method to `on_call`, of those that arrive together so many."""

        def ask() -> None:
            try:
                self._core.request_registered_call(self._queue, self._queue, method, arrived)
            except ValueError:
                return  # the server is shutting down: no more calls

        def arrived(event: Any) -> None:
            if event.success:
                ask()
                on_call(Call(event, method))

        for _ in range(at_once):
            ask()

    def take(self, seconds: float, most: int) -> bool:
        """Deal with the events that are there, at most so many; wait so long for the first.

        Tells whether there may be more.
        """
        deadline = time.time() + seconds if seconds else 0.0
        for _ in range(most):
            event = self._queue.poll(deadline)
            kind = event.completion_type
            if kind == _TIMEOUT:
                return False
            if kind == _SHUTDOWN:
                self.ended = True
                return False
            event.tag(event)
            deadline = 0.0
        return True

    def shut_down(self) -> None:
        """End the queue. Any operation of a call after this would end the process."""
        self._queue.shutdown()


def _nothing(event: Any) -> None:
    """What there is to do when an answer is on its way."""
