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
from functools import partial
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not in the types
from grpc_health.v1 import health
from grpc_status import rpc_status

from mlpserve_server.catalog import Catalog
from mlpserve_server.dataplane import Answer, DataPlane, Steps, complete
from mlpserve_server.errors import Abandoned, NotInMemory
from mlpserve_server.status import status_of
from mlpserve_server.transport import PREDICTION_SERVICE, StandardTransport, too_many

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
# How soon an idle loop notices that it shall stop.
_IDLE_SECONDS = 0.1
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
        self,
        data: DataPlane,
        catalog: Catalog,
        health_servicer: health.HealthServicer,
        max_waiting: int,
        share_port: bool = False,
    ) -> None:
        super().__init__(data, catalog, health_servicer, max_waiting, share_port)
        core: Any = self._server
        self._loop = _Loop(core._state.server, data, self._predictions, max_waiting)

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
        operations.append(cygrpc.SendStatusFromServerOperation(trailing, code, details, _NO_FLAGS))
        self.call.start_server_batch(operations, _nothing)

    def _on_received(self, event: Any) -> None:
        self.then(self, event.batch_operations[0].message())

    def _on_closed(self, event: Any) -> None:
        self.closed = True


class _Loop:
    """The thread that takes calls, answers them, and works on batches in between."""

    def __init__(
        self, core: Any, data: DataPlane, pool: futures.Executor, max_waiting: int
    ) -> None:
        self._core = core
        self._data = data
        self._pool = pool
        self._max_waiting = max_waiting
        self._queue = cygrpc.CompletionQueue()
        self._open = 0  # calls taken on and not yet answered
        self._singles: list[tuple[_Call, bytes]] = []
        self._unread: deque[_Call] = deque()  # batches that wait for their turn
        self._batches: deque[tuple[_Call, bytes, Steps]] = deque()
        self._reading = 0  # batches asked for and not yet in _batches
        self._stopping = False
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
        """Finish what is at hand, and end; the server must have stopped."""
        self._stopping = True
        self._thread.join()

    def _run(self) -> None:
        while True:
            event = self._queue.poll(_NOW if self._busy else time.time() + _IDLE_SECONDS)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            try:
                if event.completion_type == cygrpc.CompletionType.operation_complete:
                    event.tag(event)
                    if len(self._singles) >= _TOGETHER:
                        self._answer_singles()
                elif self._busy:  # nothing more has arrived
                    self._work()
                elif self._stopping:
                    # Only now, and only here: an operation on a queue that was shut down
                    # would end the process.
                    self._queue.shutdown()
            except Exception:
                log.exception("the direct transport failed at an event")
            event = None  # it holds the call, which should not outlive its end

    @property
    def _busy(self) -> bool:
        return bool(self._singles or self._batches)

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
        if self._open >= self._max_waiting:
            call.finish(too_many(self._max_waiting))
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
            steps = self._data.batch_predict(request, may_load=False)
            self._batches.append((call, request, steps))

    def _work(self) -> None:
        """Answer the single calls, and take one step of one batch."""
        if self._singles:
            self._answer_singles()
        if self._batches:
            self._step()

    def _answer_singles(self) -> None:
        waiting, self._singles = self._singles, []
        wanted = [(call, request) for call, request in waiting if not self._drop(call)]
        answers = self._data.predict([request for _, request in wanted], may_load=False)
        for (call, request), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, NotInMemory):
                self._hand_off(call, partial(self._predict_alone, request))
            else:
                self._finish(call, answer)

    def _predict_alone(self, request: bytes) -> Answer:
        return self._data.predict([request])[0]

    def _drop(self, call: _Call) -> bool:
        """End the call without computing anything when nobody waits for it."""
        if call.abandoned:
            self._finish(call, Abandoned("the caller no longer waits"))
            return True
        return False

    def _step(self) -> None:
        call, request, steps = self._batches.popleft()
        try:
            if not self._drop(call):
                next(steps)
                self._batches.append((call, request, steps))
                return
        except StopIteration as end:
            self._finish(call, end.value)
        except NotInMemory:
            again = self._data.batch_predict(request)
            self._hand_off(call, partial(complete, again, lambda: not call.abandoned))
        except Exception as error:
            self._finish(call, error)
        self._read_batches()

    def _finish(self, call: _Call, answer: Answer) -> None:
        self._open -= 1
        call.finish(answer)

    def _hand_off(self, call: _Call, work: Callable[[], Answer]) -> None:
        """Let a thread of the pool load what the call needs, and answer it."""
        self._open -= 1  # the pool counts it from here on

        def run() -> None:
            try:
                call.finish(work())
            except Exception as error:
                call.finish(error)

        self._pool.submit(run)


def _nothing(event: Any) -> None:
    """What there is to do when an answer is on its way."""
