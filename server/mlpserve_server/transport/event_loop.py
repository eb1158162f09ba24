"""The loop of the direct transport: one thread that takes calls and answers them."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from typing import NamedTuple

import grpc

from mlpserve_server.dataplane.admission import Waiting
from mlpserve_server.dataplane.predictions import Answer, DataPlane, Steps, complete
from mlpserve_server.errors import Abandoned, NotInMemory, TooSlow, Unauthenticated
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Admits
from mlpserve_server.transport.grpc_core import Call, Queue
from mlpserve_server.transport.request_reader import TOO_SLOW_SECONDS, Intake
from mlpserve_server.transport.standard import INFERENCE_SERVICE, PREDICTION_SERVICE, too_many
from mlpserve_server.transport.status import Refusal, refusal_of

__all__ = ["Loop"]

# Calls of a method that the core may hand over before it has to be asked again.
_ASKED_FOR = 64
# Events, three a call, that are taken before some work is done, and more of them for three times
# as long as the work before took: with less, calls that are to be refused would wait unseen behind
# the work; without a bound, calls that keep coming would keep those waiting that are taken on.
_MOST_EVENTS = 512
_EVENTS_TO_WORK = 3
# Batches that are being read; the others wait unread, held back by flow control.
_READING = 4
# ModelInfer requests read at once: how large one is shows when it is here.
_READING_INFERS = 32
# A larger one is a batch, and answered in steps.
_SMALL_BYTES = 16 << 10
# Fewer calls at once say nothing of the pace under load, where more share the work.
_ENOUGH = 4
# To hear of a cancelled call costs an event, which comes a moment later: calls are asked only
# after work as long as this, behind which they had to wait, and for a while.
_LONG_WORK_SECONDS, _HEARING_SECONDS, _WHILE_SECONDS = 0.005, 0.001, 0.02
# How long an idle loop sleeps; less while a thread of the pool works for it.
_IDLE_SECONDS, _HANDED_SECONDS = 0.1, 0.001

# How the data plane answers: the requests, or the request, and whether it may load.
Together = Callable[[Sequence[bytes], bool], list[Answer]]
InSteps = Callable[[bytes, bool], Steps]

log = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """A request that is answered in steps; `again` are those that may load."""

    call: Call
    steps: Steps
    again: Callable[[], Steps]


class Loop:
    """The thread that takes calls, answers them, and works on batches in between."""

    def __init__(
        self,
        server: grpc.Server,
        data: DataPlane,
        pool: futures.Executor,
        waiting: Waiting,
        admits: Admits | None,
        observer: Observer | None,
    ) -> None:
        self._admits = admits
        self._observer = observer or Observer()
        self._data = data
        self._pool = pool
        self._waiting = waiting
        # Made once: who is refused costs as little as can be.
        self._too_many = refusal_of(too_many())
        self._unauthenticated = refusal_of(Unauthenticated())
        self.open = 0  # calls taken on and not yet answered
        self._singles: list[tuple[Call, bytes]] = []
        self._infers: list[tuple[Call, bytes]] = []  # small ones
        self._batches: deque[_Batch] = deque()
        self._handed = 0  # calls that the pool works on
        self._handed_back: deque[tuple[Call, Answer]] = deque()
        self._next_look = 0.0
        self._work_seconds = 0.0  # how long the last work took
        self._backlog_until = 0.0  # so long there may be calls that had to wait
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="direct", daemon=True)
        self._intakes = {
            f"/{PREDICTION_SERVICE}/Predict": Intake(self._add_single, self._gone),
            f"/{PREDICTION_SERVICE}/BatchPredict": Intake(self._add_batch, self._gone, _READING),
            f"/{INFERENCE_SERVICE}/ModelInfer": Intake(
                self._add_infer, self._gone, _READING_INFERS
            ),
        }
        self._queue = Queue(server, list(self._intakes))

    def start(self) -> None:
        """Begin to take calls; the server must have started."""
        for method, intake in self._intakes.items():
            self._queue.hand_over(method, partial(self._admit, intake), _ASKED_FOR)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is at hand, and end; the server must have stopped."""
        self._stopping = True
        self._thread.join()

    def _run(self) -> None:
        while not self._queue.ended:
            try:
                more = self._queue.take(self._patience(), _MOST_EVENTS)
                until = time.monotonic() + _EVENTS_TO_WORK * self._work_seconds
                while more and time.monotonic() < until:
                    more = self._queue.take(0, _MOST_EVENTS)
                if time.monotonic() < self._backlog_until:
                    self._hear_of_cancelled()
                began = time.monotonic()
                self._work()
                ended = time.monotonic()
                self._work_seconds = ended - began
                if self._work_seconds > _LONG_WORK_SECONDS:
                    self._backlog_until = ended + _WHILE_SECONDS
            except Exception:
                log.exception("the direct transport failed at an event")

    def _hear_of_cancelled(self) -> None:
        waiting = [call for call, _ in (*self._singles, *self._infers)]
        for call in waiting:
            call.watch()
        until = time.monotonic() + _HEARING_SECONDS
        while waiting and (left := until - time.monotonic()) > 0:
            self._queue.take(left, _MOST_EVENTS)

    def _patience(self) -> float:
        """How long to wait for an event: not at all while there is work."""
        if self._has_work():
            return 0.0
        return _HANDED_SECONDS if self._handed else _IDLE_SECONDS

    def _has_work(self) -> bool:
        return bool(self._singles or self._infers or self._batches or self._handed_back)

    def _work(self) -> None:
        """Answer the single calls, take one step of one batch, and look around."""
        singles, self._singles = self._singles, []
        infers, self._infers = self._infers, []
        if singles:
            self._answer_together(singles, self._data.predict)
        if infers:
            self._answer_together(infers, self._data.infer)
        if self._batches:
            self._step(self._batches.popleft())
        while self._handed_back:
            self._handed -= 1
            self._finish(*self._handed_back.popleft())
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _IDLE_SECONDS
            self._give_up_slow_requests()
        if self._stopping and not self._has_work():
            self._queue.shut_down()

    def _admit(self, intake: Intake, call: Call) -> None:
        if self._admits and not self._admits(call.metadata):
            self._refuse(call, self._unauthenticated)
        elif self.open >= self._waiting.limit:
            self._refuse(call, self._too_many)
        else:
            self.open += 1
            intake.take(call)

    def _gone(self, call: Call) -> None:
        self._finish(call, Abandoned("the caller is gone"))

    def _give_up_slow_requests(self) -> None:
        for intake in self._intakes.values():
            for call in intake.given_up():
                self._finish(call, TooSlow(f"no request in {TOO_SLOW_SECONDS:g} s"))

    def _add_single(self, call: Call, request: bytes) -> None:
        self._singles.append((call, request))

    def _add_batch(self, call: Call, request: bytes) -> None:
        self._begin(call, request, self._data.batch_predict)

    def _add_infer(self, call: Call, request: bytes) -> None:
        if len(request) <= _SMALL_BYTES:
            self._infers.append((call, request))
        else:
            self._begin(call, request, self._data.infer_in_steps)

    def _begin(self, call: Call, request: bytes, answer: InSteps) -> None:
        call.watch()
        # The first step, which checks and admits, at once: it may be refused.
        self._step(_Batch(call, answer(request, False), partial(answer, request, True)))

    def _answer_together(self, waiting: Sequence[tuple[Call, bytes]], answer: Together) -> None:
        wanted = [(call, request) for call, request in waiting if not self._drop(call)]
        began = time.thread_time()
        answers = answer([request for _, request in wanted], False)
        if len(wanted) >= _ENOUGH:
            self._waiting.computed(len(wanted), time.thread_time() - began)
        for (call, request), found in zip(wanted, answers, strict=True):
            if isinstance(found, NotInMemory):
                call.watch()
                self._hand_off(call, partial(_alone, answer, request))
            else:
                self._finish(call, found)

    def _step(self, batch: _Batch) -> None:
        call = batch.call
        try:
            if not self._drop(call):
                next(batch.steps)
                self._batches.append(batch)
        except StopIteration as end:
            self._finish(call, end.value)
        except NotInMemory:
            again = partial(complete, batch.again(), lambda: not call.abandoned)
            self._hand_off(call, again)
        except Exception as error:
            self._finish(call, error)

    def _drop(self, call: Call) -> bool:
        """End the call without computing anything when nobody waits for it."""
        if call.abandoned:
            self._finish(call, Abandoned("the caller no longer waits"))
            return True
        return False

    def _finish(self, call: Call, answer: Answer) -> None:
        """Send the answer or the error, and end the call."""
        self.open -= 1
        if isinstance(answer, Exception):
            self._refuse(call, refusal_of(answer, call))
        else:
            call.rows, call.version = answer.rows, answer.version
            call.answer(answer.response)
            self._observer.ended(call, 0)

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        call.refuse(*refusal)
        self._observer.ended(call, refusal.code)

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


def _alone(answer: Together, request: bytes) -> Answer:
    return answer([request], True)[0]
