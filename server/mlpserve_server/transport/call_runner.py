"""Calls of the direct transport whose requests are here: computed, together or in steps."""

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from typing import TypeAlias

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.predictions import DataPlane, Outcome, Scopes, Steps, complete
from mlpserve_server.errors import (
    Abandoned,
    ManyRows,
    NotInMemory,
    RequestTooLarge,
    ServingError,
    as_value,
)
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.scope import ALL, Scope
from mlpserve_server.transport.compression import inflate, inflate_large, is_compressed
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.open_calls import OpenCalls
from mlpserve_server.transport.reading import OnRequest
from mlpserve_server.transport.services import SMALL_BYTES
from mlpserve_server.transport.work_queue import Batch, Inflated, WorkQueue

__all__ = ["CallRunner"]

# Fewer calls at once say nothing of the pace under load, where more share the work.
_MIN_SAMPLE = 4
_LOAD_THREADS = 8

# What comes of a request that is not computed yet.
_LATER = (ManyRows, NotInMemory)

Waiting: TypeAlias = Sequence[tuple[ServerCall, bytes]]
# How the data plane answers: the requests, or the request, whether it may load, and the scopes.
Together = Callable[[Sequence[bytes], bool, Scopes], list[Outcome]]
InSteps = Callable[[bytes, bool, Scope], Steps]


class CallRunner:
    """Computes the answers to calls; it belongs to the event loop's thread.

    Attributes:
        calls: The calls taken on and not yet answered.
        work: What is to be computed.
    """

    def __init__(
        self, data: DataPlane, limits: Limits, observer: Observer, is_scoped: bool
    ) -> None:
        self._data = data
        self._limits = limits
        self._is_scoped = is_scoped  # whether calls have a scope
        self._pool = futures.ThreadPoolExecutor(_LOAD_THREADS, thread_name_prefix="load")
        self.calls = OpenCalls(limits, observer)
        self.work: WorkQueue[ServerCall] = WorkQueue()

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
        elif self.calls.hold(call, len(request)):
            # By itself and at once: larger than most models take, it is likely to be refused.
            self._answer_together([(call, request)], self._data.predict)

    def add_batch(self, call: ServerCall, request: bytes) -> None:
        """Answer a BatchPredictRequest in steps."""
        self._begin(call, request, self._data.batch_predict)

    def add_infer(self, call: ServerCall, request: bytes) -> None:
        """Answer a ModelInferRequest, one of few rows with others and a large one in steps."""
        if len(request) <= SMALL_BYTES:
            self.work.infers.append((call, request))
        else:
            self._begin(call, request, self._data.infer_in_steps)

    def work_once(self) -> None:
        """Answer the single calls and take one step of one batch."""
        if singles := self.work.take_singles():
            self._answer_together(singles, self._data.predict)
        if infers := self.work.take_infers():
            self._answer_together(infers, self._data.infer, self._data.infer_in_steps)
        if batch := self.work.take_batch():
            self._step(batch)
        for call, answer in self.work.take_handed_back():
            if isinstance(answer, Inflated):
                self.calls.release(call)
                answer.then(call, answer.request)
            else:
                self.calls.finish(call, answer)

    def _inflate(self, call: ServerCall, request: bytes, then: OnRequest) -> None:
        """Pass on a small request at once, and a large one when a thread has inflated it."""
        try:
            small = inflate(request, SMALL_BYTES)
        except RequestTooLarge:
            limit, reserve = self._limits.max_request, partial(self.calls.hold_more, call)
            if self.calls.hold(call, len(request)):
                inflated = partial(inflate_large, request, limit, reserve)
                self._hand_over(call, lambda: Inflated(inflated(), then))
        except ServingError as error:
            self.calls.finish(call, as_value(error))
        else:
            then(call, small)

    def _begin(self, call: ServerCall, request: bytes, answer: InSteps) -> None:
        if not self.calls.hold(call, len(request)):
            return
        call.watch()
        # The first step, which checks and admits, at once: it may be refused.
        scope = call.scope if self._is_scoped else ALL
        steps, again = answer(request, False, scope), partial(answer, request, True, scope)
        self._step(Batch(call, steps, again))

    def _answer_together(
        self, waiting: Waiting, answer: Together, in_steps: InSteps | None = None
    ) -> None:
        now = time.time()  # once for all
        waiting = [
            (call, request)
            for call, request in waiting
            if not (call.is_abandoned(now) and self._drop(call))
        ]
        says_pace = len(waiting) >= _MIN_SAMPLE
        began = time.thread_time() if says_pace else 0.0  # a system call
        scopes = [call.scope for call, _ in waiting] if self._is_scoped else None
        answers = answer([request for _, request in waiting], False, scopes)
        done = sum(not isinstance(found, _LATER) for found in answers) if says_pace else 0
        if 2 * done > len(answers):  # else the time is that of decoding others
            self._limits.queue.record(done, time.thread_time() - began)
        for (call, request), found in zip(waiting, answers, strict=True):
            if in_steps and isinstance(found, _LATER):
                self._begin(call, request, in_steps)
            elif isinstance(found, NotInMemory):
                call.watch()
                own = scopes and [call.scope]
                self._hand_over(call, partial(_answer_alone, answer, request, own))
            else:
                self.calls.finish(call, found)

    def _step(self, batch: Batch[ServerCall]) -> None:
        call = batch.call
        try:
            if not self._drop(call):
                self.work.put_batch(next(batch.steps), batch)
        except StopIteration as end:
            self.calls.finish(call, end.value)
        except NotInMemory:
            again = partial(complete, batch.again(), lambda: not call.abandoned)
            self._hand_over(call, again)
        except Exception as error:
            self.calls.finish(call, error)

    def _drop(self, call: ServerCall) -> bool:
        """End the call without computing anything when nobody waits for it."""
        if call.abandoned:
            self.calls.finish(call, Abandoned("the caller no longer waits"))
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
