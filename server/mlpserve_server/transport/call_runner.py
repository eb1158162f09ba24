"""Calls of the direct transport whose requests are here: computed, together or in steps."""

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.predictions import DataPlane, Outcome, Scopes, Steps, complete
from mlpserve_server.errors import (
    Abandoned,
    NotInMemory,
    RequestTooLarge,
    ServingError,
    as_value,
)
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.scope import ALL, Scope
from mlpserve_server.transport.compression import inflate, is_compressed
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.reading import OnRequest
from mlpserve_server.transport.request_reader import no_memory
from mlpserve_server.transport.response_sender import ResponseSender
from mlpserve_server.transport.services import COPIES, SMALL_BYTES
from mlpserve_server.transport.status import Refusal, refusal_of
from mlpserve_server.transport.work_queue import Batch, Inflated, WorkQueue

__all__ = ["CallRunner"]

# Fewer calls at once say nothing of the pace under load, where more share the work.
_MIN_SAMPLE = 4
_LOAD_THREADS = 8

# How the data plane answers: the requests, or the request, whether it may load, and the scopes.
Together = Callable[[Sequence[bytes], bool, Scopes], list[Outcome]]
InSteps = Callable[[bytes, bool, Scope], Steps]


class CallRunner:
    """Computes the answers to calls, and sends them; it belongs to the event loop's thread.

    Attributes:
        open: The calls taken on and not yet answered.
        work: What is to be computed.
        sender: What is being sent.

    """

    def __init__(
        self, data: DataPlane, limits: Limits, observer: Observer, is_scoped: bool
    ) -> None:
        self._data = data
        self._limits = limits
        self._observer = observer
        self._is_scoped = is_scoped  # whether calls have a scope
        self._pool = futures.ThreadPoolExecutor(_LOAD_THREADS, thread_name_prefix="load")
        self.open = 0
        self.work: WorkQueue[ServerCall] = WorkQueue()
        self.sender = ResponseSender(limits.bytes)

    def close(self) -> None:
        """End the threads that load."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def inflating(self, then: OnRequest) -> OnRequest:
        """Return what takes compressed requests too, and passes each on as its sender had it."""

        def take(call: ServerCall, request: bytes) -> None:
            if is_compressed(request):
                self._inflate(call, request, then)
            else:
                then(call, request)

        return take

    def add_single(self, call: ServerCall, request: bytes) -> None:
        """Answer a PredictRequest, a small one with others; raise nothing."""
        if len(request) <= SMALL_BYTES:
            self.work.singles.append((call, request))
        elif self._hold(call, len(request)):
            # By itself and at once: larger than most models take, it is likely to be refused.
            self._answer_together([(call, request)], self._data.predict)

    def add_batch(self, call: ServerCall, request: bytes) -> None:
        """Answer a BatchPredictRequest in steps."""
        if self._hold(call, len(request)):
            self._begin(call, request, self._data.batch_predict)

    def add_infer(self, call: ServerCall, request: bytes) -> None:
        """Answer a ModelInferRequest, a small one with others and a large one in steps."""
        if len(request) <= SMALL_BYTES:
            self.work.infers.append((call, request))
        elif self._hold(call, len(request)):
            self._begin(call, request, self._data.infer_in_steps)

    def work_once(self) -> None:
        """Answer the single calls and take one step of one batch."""
        if singles := self.work.take_singles():
            self._answer_together(singles, self._data.predict)
        if infers := self.work.take_infers():
            self._answer_together(infers, self._data.infer)
        if batch := self.work.take_batch():
            self._step(batch)
        for call, answer in self.work.take_handed_back():
            if isinstance(answer, Inflated):
                self._release(call)
                answer.then(call, answer.request)
            else:
                self.finish(call, answer)

    def finish(self, call: ServerCall, answer: Outcome) -> None:
        """Send the answer or the error, and end the call."""
        self.open -= 1
        self._release(call)
        if isinstance(answer, Exception):
            self.refuse(call, refusal_of(answer, call))
        else:
            call.rows, call.version, call.model = answer.rows, answer.version, answer.model
            self.sender.send(call, answer.response)
            self._observer.ended(call, 0)

    def refuse(self, call: ServerCall, refusal: Refusal) -> None:
        """End a call with a refusal; it is not, or no longer, one of the open calls."""
        self.sender.refuse(call, refusal)
        self._observer.ended(call, refusal.code)

    def _inflate(self, call: ServerCall, request: bytes, then: OnRequest) -> None:
        """Pass on a small request at once, and a large one when a thread has inflated it."""
        try:
            small = inflate(request, SMALL_BYTES)
        except RequestTooLarge:
            limit = self._limits.max_request
            if self._hold(call, limit):
                self._hand_over(call, lambda: Inflated(inflate(request, limit), then))
        except ServingError as error:
            self.finish(call, as_value(error))
        else:
            then(call, small)

    def _hold(self, call: ServerCall, length: int) -> bool:
        """Count the memory of a request of this length as in use, or refuse it."""
        size = COPIES * length
        if not self._limits.bytes.take(size):
            self.finish(call, no_memory())
            return False
        call.held = size
        return True

    def _release(self, call: ServerCall) -> None:
        if call.held:
            self._limits.bytes.release(call.held)
            call.held = 0

    def _begin(self, call: ServerCall, request: bytes, answer: InSteps) -> None:
        call.watch()
        # The first step, which checks and admits, at once: it may be refused.
        scope = call.scope if self._is_scoped else ALL
        self._step(
            Batch(call, answer(request, False, scope), partial(answer, request, True, scope))
        )

    def _answer_together(
        self, waiting: Sequence[tuple[ServerCall, bytes]], answer: Together
    ) -> None:
        wanted = [(call, request) for call, request in waiting if not self._drop(call)]
        says_pace = len(wanted) >= _MIN_SAMPLE
        began = time.thread_time() if says_pace else 0.0  # a system call
        scopes = [call.scope for call, _ in wanted] if self._is_scoped else None
        answers = answer([request for _, request in wanted], False, scopes)
        if says_pace:
            self._limits.queue.record(len(wanted), time.thread_time() - began)
        for (call, request), found in zip(wanted, answers, strict=True):
            if isinstance(found, NotInMemory):
                call.watch()
                own = [call.scope] if self._is_scoped else None
                self._hand_over(call, partial(_answer_alone, answer, request, own))
            else:
                self.finish(call, found)

    def _step(self, batch: Batch[ServerCall]) -> None:
        call = batch.call
        try:
            if not self._drop(call):
                self.work.put_batch(next(batch.steps), batch)
        except StopIteration as end:
            self.finish(call, end.value)
        except NotInMemory:
            again = partial(complete, batch.again(), lambda: not call.abandoned)
            self._hand_over(call, again)
        except Exception as error:
            self.finish(call, error)

    def _drop(self, call: ServerCall) -> bool:
        """End the call without computing anything when nobody waits for it."""
        if call.abandoned:
            self.finish(call, Abandoned("the caller no longer waits"))
            return True
        return False

    def _hand_over(self, call: ServerCall, work: Callable[[], Outcome | Inflated]) -> None:
        """Let a thread of the pool load or inflate what is needed; the call stays open."""

        def run() -> None:
            answer: Outcome | Inflated = Abandoned("the caller no longer waits")
            try:
                if not call.abandoned:
                    answer = work()
            except Exception as error:
                answer = as_value(error)
            self.work.hand_back(call, answer)

        self.work.hand_over()
        self._pool.submit(run)


def _answer_alone(answer: Together, request: bytes, scopes: Scopes) -> Outcome:
    return answer([request], True, scopes)[0]
