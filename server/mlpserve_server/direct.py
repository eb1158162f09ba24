"""The direct transport: the prediction methods on a completion queue of our own.

grpcio's public server hands every call to a thread, which costs ten times what the answer
costs. Here one thread takes the calls from gRPC's core, answers all that have arrived with one
matrix product, and never waits for more. Everything else stays on the standard transport's
server, on the same port. The layer below is not public API: this file alone touches it, and
only in the versions that the contract test runs with.
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc_health.v1 import health
from grpc_status import rpc_status

from mlpserve_server.catalog import Catalog
from mlpserve_server.dataplane import Answer, DataPlane, Steps
from mlpserve_server.errors import Abandoned, NotInMemory, Overloaded
from mlpserve_server.status import status_of
from mlpserve_server.transport import (
    MAX_WAITING_CALLS,
    PREDICTION_SERVICE,
    RETRY_SECONDS,
    StandardTransport,
)

__all__ = ["SUPPORTED", "DirectTransport", "unsupported"]

# The grpcio versions that the contract test passes with: from, and below.
SUPPORTED = ((1, 74), (1, 86))

# Calls of a method that the core may hand over before it has to be asked again.
_ASKED_FOR = 64
# Most single calls in one matrix product.
_TOGETHER = 128
# Batches whose requests are in memory; the others wait unread, held back by flow control.
_OPEN_BATCHES = 4

_NOW = 0.0
_NO_FLAGS = 0

log = logging.getLogger(__name__)


def unsupported() -> str | None:
    """Why the direct transport cannot be used with this grpcio, or None when it can."""
    found = tuple(map(int, re.findall(r"\d+", grpc.__version__)[:2]))
    if SUPPORTED[0] <= found < SUPPORTED[1]:
        return None
    low, high = (".".join(map(str, version)) for version in SUPPORTED)
    return f"it is made for grpcio from {low} and below {high}, this is {grpc.__version__}"


class DirectTransport(StandardTransport):
    """The standard transport, with the prediction methods on a faster way."""

    def __init__(
        self, data: DataPlane, catalog: Catalog, health_servicer: health.HealthServicer
    ) -> None:
        super().__init__(data, catalog, health_servicer)
        self._loop = _Loop(self._server._state.server, data, self._predictions)

    def start(self) -> None:
        """Begin to answer."""
        super().start()
        self._loop.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those in flight up to the grace time, end."""
        super().stop(grace_seconds)  # returns when our calls have ended too
        self._loop.stop()


class _Call:
    """One call, from its arrival to its end."""

    __slots__ = ("call", "closed", "deadline", "then")

    def __init__(self, event: Any) -> None:
        self.call = event.call
        self.deadline: float = event.call_details.deadline
        self.closed = False
        self.then: Callable[[_Call, bytes | None], None]

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.closed or self.deadline < time.time()

    def receive(self, then: "Callable[[_Call, bytes | None], None]") -> None:
        """Ask for the request; `then` gets its bytes, or None when the caller is gone."""
        self.then = then
        self.call.start_server_batch(
            (cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_received
        )

    def watch(self) -> None:
        """Notice from now on when the caller hangs up."""
        operations = (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
        self.call.start_server_batch(operations, self._on_closed)

    def finish(self, answer: Answer) -> None:
        """Send the answer or the error, and end the call."""
        operations: list[Any] = [cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)]
        if isinstance(answer, Exception):
            status = rpc_status.to_status(status_of(answer))
            code, details = status.code.value[0], status.details.encode()
            trailing = status.trailing_metadata
        else:
            operations.append(cygrpc.SendMessageOperation(answer, _NO_FLAGS))
            code, details, trailing = cygrpc.StatusCode.ok, b"", None
        operations.append(
            cygrpc.SendStatusFromServerOperation(trailing, code, details, _NO_FLAGS)
        )
        self.call.start_server_batch(operations, _nothing)

    def _on_received(self, event: Any) -> None:
        self.then(self, event.batch_operations[0].message())

    def _on_closed(self, event: Any) -> None:
        self.closed = True


class _Loop:
    """The thread that takes calls, answers them, and works on batches in between."""

    def __init__(self, core: Any, data: DataPlane, pool: futures.Executor) -> None:
        self._core = core
        self._data = data
        self._pool = pool
        self._queue = cygrpc.CompletionQueue()
        self._open = 0  # calls taken on and not yet answered
        self._singles: list[tuple[_Call, bytes]] = []
        self._unread: deque[_Call] = deque()  # batches that wait for their turn
        self._batches: deque[tuple[_Call, Steps]] = deque()
        self._reading = 0  # batches asked for and not yet in _batches
        self._thread = threading.Thread(target=self._run, name="direct", daemon=True)
        core.register_completion_queue(self._queue)
        self._methods = {
            f"/{PREDICTION_SERVICE}/Predict": self._take_single,
            f"/{PREDICTION_SERVICE}/BatchPredict": self._take_batch,
        }
        for method in self._methods:
            core.register_method(method)

    def start(self) -> None:
        for method in self._methods:
            for _ in range(_ASKED_FOR):
                self._ask_for(method)
        self._thread.start()

    def stop(self) -> None:
        self._queue.shutdown()
        self._thread.join()

    def _run(self) -> None:
        while True:
            busy = self._singles or self._batches
            event = self._queue.poll(_NOW if busy else None)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            try:
                if event.completion_type == cygrpc.CompletionType.operation_complete:
                    event.tag(event)
                    if len(self._singles) >= _TOGETHER:
                        self._answer_singles()
                else:  # nothing more has arrived
                    self._work()
            except Exception:
                log.exception("the direct transport failed at an event")
            event = None  # it holds the call, which should not outlive its end

    def _ask_for(self, method: str) -> None:
        def on_call(event: Any) -> None:
            if event.success:
                self._ask_for(method)
                self._admit(_Call(event), self._methods[method])

        try:
            self._core.request_registered_call(self._queue, self._queue, method, on_call)
        except ValueError:
            return  # the server is shutting down: no more calls

    def _admit(self, call: _Call, take: Callable[[_Call], None]) -> None:
        call.watch()
        if self._open >= MAX_WAITING_CALLS:
            message = f"more than {MAX_WAITING_CALLS} calls are waiting"
            call.finish(Overloaded(message, RETRY_SECONDS))
            return
        self._open += 1
        take(call)

    def _take_single(self, call: _Call) -> None:
        call.receive(self._on_single)

    def _on_single(self, call: _Call, request: bytes | None) -> None:
        if request is None:
            self._finish(call, Abandoned("the caller is gone"))
        else:
            self._singles.append((call, request))

    def _take_batch(self, call: _Call) -> None:
        self._unread.append(call)
        self._read_batches()

    def _read_batches(self) -> None:
        while self._unread and self._reading + len(self._batches) < _OPEN_BATCHES:
            self._reading += 1
            self._unread.popleft().receive(self._on_batch)

    def _on_batch(self, call: _Call, request: bytes | None) -> None:
        self._reading -= 1
        if request is None:
            self._finish(call, Abandoned("the caller is gone"))
            self._read_batches()
        else:
            self._batches.append((call, self._data.batch_predict(request, may_load=False)))

    def _work(self) -> None:
        """Answer the single calls, and take one step of one batch."""
        if self._singles:
            self._answer_singles()
        if self._batches:
            self._step()

    def _answer_singles(self) -> None:
        waiting, self._singles = self._singles, []
        calls = [(call, request) for call, request in waiting if not call.abandoned]
        answers = self._data.predict([request for _, request in calls], may_load=False)
        for (call, request), answer in zip(calls, answers, strict=True):
            if isinstance(answer, NotInMemory):
                self._pool.submit(self._load_and_predict, call, request)
            else:
                self._finish(call, answer)
