"""The direct transport: the prediction methods on a completion queue of our own.

grpcio's public server hands every call to a thread, which costs ten times what the answer
costs. Here one thread takes the calls from gRPC's core, answers all that have arrived with one
matrix product, and never waits for more. Everything else stays on the standard transport's
server, on the same port.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from functools import partial

import grpc
from grpc_status import rpc_status

from mlpserve_server.access import Access, Admits
from mlpserve_server.catalog import Catalog
from mlpserve_server.core import Call, Queue
from mlpserve_server.dataplane import Answer, DataPlane, Steps, complete
from mlpserve_server.errors import Abandoned, NotInMemory, TooSlow, Unauthenticated
from mlpserve_server.health import Health
from mlpserve_server.observer import Observer
from mlpserve_server.status import status_of
from mlpserve_server.transport import PREDICTION_SERVICE, StandardTransport, too_many

__all__ = ["DirectTransport"]

# Calls of a method that the core may hand over before it has to be asked again.
_ASKED_FOR = 64
# Most events, four a call, that are taken before some work is done: without a bound, calls that
# keep coming would keep those that are there waiting.
_MOST_EVENTS = 512
# Batches whose requests are in memory; the others wait unread, held back by flow control.
_OPEN_BATCHES = 4
# A request that is not here by then no longer keeps others waiting; later, it is refused.
_SLOW_SECONDS, _TOO_SLOW_SECONDS = 1.0, 30.0
# How long an idle loop sleeps; less while a thread of the pool works for it.
_IDLE_SECONDS, _HANDED_SECONDS = 0.1, 0.001

log = logging.getLogger(__name__)


class DirectTransport(StandardTransport):
    """The standard transport, with the prediction methods on a faster way."""

    def __init__(
        self,
        data: DataPlane,
        catalog: Catalog,
        health: Health,
        access: Access,
        max_waiting: int,
        share_port: bool = False,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(data, catalog, health, access, max_waiting, share_port, observer)
        self._loop = _Loop(
            self._server, data, self._predictions, max_waiting, access.admits, observer
        )

    @property
    def waiting(self) -> int:
        """Predictions taken on and not yet answered."""
        return self._loop.open

    def start(self) -> None:
        """Begin to answer."""
        super().start()
        self._loop.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, wait for those in flight up to the grace time, end."""
        super().stop(grace_seconds)  # returns when our calls have ended too
        self._loop.stop()


class _Loop:
    """The thread that takes calls, answers them, and works on batches in between."""

    def __init__(
        self,
        server: grpc.Server,
        data: DataPlane,
        pool: futures.Executor,
        max_waiting: int,
        admits: Admits | None,
        observer: Observer | None,
    ) -> None:
        self._admits = admits
        self._observer = observer or Observer()
        self._data = data
        self._pool = pool
        self._max_waiting = max_waiting
        self.open = 0  # calls taken on and not yet answered
        self._awaited: dict[Call, float] = {}  # whose requests have not come, and since when
        self._singles: list[tuple[Call, bytes]] = []
        self._unread: deque[Call] = deque()  # batches that wait for their turn
        self._reading: set[Call] = set()  # batches that are awaited, and not for long
        self._batches: deque[tuple[Call, bytes, Steps]] = deque()
        self._handed = 0  # calls that the pool works on
        self._handed_back: deque[tuple[Call, Answer]] = deque()
        self._next_look = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="direct", daemon=True)
        self._methods = {
            f"/{PREDICTION_SERVICE}/Predict": self._receive_single,
            f"/{PREDICTION_SERVICE}/BatchPredict": self._take_batch,
        }
        self._queue = Queue(server, list(self._methods))

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
        taken = 0  # events since the last work
        while not self._queue.ended:
            try:
                if self._queue.take(self._patience()) and taken < _MOST_EVENTS:
                    taken += 1
                    continue
                taken = 0
                self._work()
            except Exception:
                log.exception("the direct transport failed at an event")

    def _patience(self) -> float:
        """How long to wait for an event: not at all while there is work."""
        if self._singles or self._batches or self._handed_back:
            return 0.0
        return _HANDED_SECONDS if self._handed else _IDLE_SECONDS

    def _work(self) -> None:
        """Answer the single calls, take one step of one batch, and look around."""
        if self._singles:
            self._answer_singles()
        if self._batches:
            self._step()
        while self._handed_back:
            self._handed -= 1
            self._finish(*self._handed_back.popleft())
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _IDLE_SECONDS
            self._look_after_slow_requests()
        if self._stopping and not (self._singles or self._batches or self._handed_back):
            self._queue.shut_down()

    def _ask_for(self, method: str) -> None:
        def on_call(call: Call) -> None:
            self._ask_for(method)
            if self._admits and not self._admits(call.metadata):
                self._send(call, Unauthenticated())
            elif self.open >= self._max_waiting:
                self._send(call, too_many(self._max_waiting))
            else:
                self.open += 1
                self._methods[method](call)

        self._queue.ask_for(method, on_call)

    def _receive_single(self, call: Call) -> None:
        self._awaited[call] = time.monotonic()
        call.receive(self._on_single)

    def _on_single(self, call: Call, request: bytes | None) -> None:
        self._awaited.pop(call, None)
        if request is None:
            self._finish(call, Abandoned("the caller is gone"))
        else:
            self._singles.append((call, request))

    def _take_batch(self, call: Call) -> None:
        self._unread.append(call)
        self._read_batches()

    def _read_batches(self) -> None:
        while self._unread and len(self._reading) + len(self._batches) < _OPEN_BATCHES:
            call = self._unread.popleft()
            self._awaited[call] = time.monotonic()
            self._reading.add(call)
            call.receive(self._on_batch)

    def _on_batch(self, call: Call, request: bytes | None) -> None:
        self._awaited.pop(call, None)
        self._reading.discard(call)
        if request is None:
            self._finish(call, Abandoned("the caller is gone"))
            self._read_batches()
        else:
            steps = self._data.batch_predict(request, may_load=False)
            self._batches.append((call, request, steps))

    def _look_after_slow_requests(self) -> None:
        now = time.monotonic()
        for call, since in list(self._awaited.items()):  # the oldest first
            if now - since < _SLOW_SECONDS:
                break
            self._reading.discard(call)
            if now - since >= _TOO_SLOW_SECONDS:
                del self._awaited[call]
                self._finish(call, TooSlow(f"no request in {_TOO_SLOW_SECONDS:g} s"))
        self._read_batches()

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

    def _drop(self, call: Call) -> bool:
        """End the call without computing anything when nobody waits for it."""
        if call.abandoned:
            self._finish(call, Abandoned("the caller no longer waits"))
        return call.finished

    def _finish(self, call: Call, answer: Answer) -> None:
        if not call.finished:  # one that was too slow may still be heard of
            self.open -= 1
            self._send(call, answer)

    def _send(self, call: Call, answer: Answer) -> None:
        """Send the answer or the error, and end the call."""
        if isinstance(answer, Exception):
            status = rpc_status.to_status(status_of(answer, call))
            call.refuse(status.code.value[0], status.details, status.trailing_metadata)
            self._observer.ended(call, status.code.value[0])
        else:
            call.answer(answer)
            self._observer.ended(call, 0, answer)

    def _hand_off(self, call: Call, work: Callable[[], Answer]) -> None:
        """Let a thread of the pool load what the call needs; it stays one of the open calls."""

        def run() -> None:
            answer: Answer = Abandoned("the caller no longer waits")
            try:
                if not call.abandoned:
                    answer = work()
            except Exception as error:
                answer = error
            self._handed_back.append((call, answer))

        self._handed += 1
        self._pool.submit(run)
