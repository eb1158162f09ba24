"""The event loop of the direct transport: one thread that takes calls and answers them."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial

import grpc

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.predictions import Answer, DataPlane, Steps, complete
from mlpserve_server.errors import (
    Abandoned,
    MetadataTooLarge,
    NoRequest,
    NotInMemory,
    Unauthenticated,
    as_value,
)
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import Admits
from mlpserve_server.transport.answers import Answers
from mlpserve_server.transport.grpc_core import CompletionQueue, ServerCall
from mlpserve_server.transport.handlers import too_many
from mlpserve_server.transport.request_reader import RequestReader, no_memory
from mlpserve_server.transport.services import (
    COPIES,
    HOT_METHODS,
    MAX_METADATA_BYTES,
    MAX_REQUEST_BYTES,
    SMALL_BYTES,
    metadata_is_too_large,
)
from mlpserve_server.transport.status import Refusal, refusal_of
from mlpserve_server.transport.work_queue import Batch, WorkQueue

__all__ = ["EventLoop"]

# Calls of a method that the core may hand over before it has to be asked again.
_ACCEPTED_AT_ONCE = 64
# Events, three a call, that are handled before some work is done.
_MAX_EVENTS, _MAX_EVENTS_SECONDS = 512, 0.005
# Batches that are being read; the others wait unread, held back by flow control.
_READING_BATCHES = 4
# ModelInfer requests read at once: how large one is shows when it is here.
_READING_INFERS = 32
# Fewer calls at once say nothing of the pace under load, where more share the work.
_MIN_SAMPLE = 4
# How long to wait for the events of cancelled calls.
_CANCELLED_SECONDS = 0.001
# A request that has been on its way for longer is not a small one.
_LONG_READ_SECONDS = 0.02
# While memory is short, and for a while, few requests of Predict are read at once.
_CAREFUL_READS, _CAREFUL_SECONDS = 4, 1.0
_LOAD_THREADS = 8

# How the data plane answers: the requests, or the request, and whether it may load.
Together = Callable[[Sequence[bytes], bool], list[Answer]]
InSteps = Callable[[bytes, bool], Steps]

log = logging.getLogger(__name__)


class EventLoop:
    """The thread that takes calls, answers them, and works on batches in between."""

    def __init__(
        self,
        server: grpc.Server,
        data: DataPlane,
        limits: Limits,
        admits: Admits | None,
        observer: Observer,
    ) -> None:
        self._data = data
        self._limits = limits
        self._admits = admits
        self._observer = observer
        self._pool = futures.ThreadPoolExecutor(_LOAD_THREADS, thread_name_prefix="load")
        # Made once: a refusal costs as little as can be.
        self._too_many = refusal_of(too_many())
        self._unauthenticated = refusal_of(Unauthenticated())
        self._metadata_too_large = refusal_of(MetadataTooLarge(MAX_METADATA_BYTES))
        self.open = 0  # calls taken on and not yet answered
        self._work: WorkQueue[ServerCall] = WorkQueue()
        self._answers = Answers(limits.bytes)
        self._silent: list[ServerCall] = []  # their requests have ended before they were complete
        self._careful_until = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="direct", daemon=True)
        self._readers = self._make_readers()
        self._queue = CompletionQueue(server, HOT_METHODS)

    @property
    def computing(self) -> bool:
        """Whether calls are waited for whose requests are here."""
        return self.open > sum(reader.pending for reader in self._readers.values())

    @property
    def busy(self) -> bool:
        """Whether there is any call, also one that is being read or sent."""
        return bool(self.open or self._answers)

    def start(self) -> None:
        """Begin to take calls; the server must have started."""
        for method, reader in self._readers.items():
            self._queue.accept(method, partial(self._admit, reader), _ACCEPTED_AT_ONCE)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is at hand, and end; the server must have stopped."""
        self._stopping = True
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _make_readers(self) -> dict[str, RequestReader]:
        read = partial(RequestReader, on_end=self._ended, bytes_limit=self._limits.bytes)
        read_large = partial(read, reserved=COPIES * MAX_REQUEST_BYTES)
        predict, batch, infer = HOT_METHODS
        return {
            predict: read(self._add_single),
            batch: read_large(self._add_batch, at_once=_READING_BATCHES),
            infer: read_large(self._add_infer, at_once=_READING_INFERS),
        }

    def _run(self) -> None:
        while not self._queue.ended:
            try:
                more = self._poll(self._work.patience(self.busy))
                until = self._work.events_until()
                while more and time.monotonic() < until:
                    more = self._poll(0)
                if self._work.has_backlog():
                    self._find_cancelled()
                self._work.begin()
                self._do_work()
                self._work.end()
                if self._work.look_is_due():
                    self._look()
                if self._stopping and not self._work:
                    self._queue.shut_down()
            except Exception:
                log.exception("the direct transport failed at an event")

    def _poll(self, seconds: float) -> bool:
        return self._queue.poll(seconds, _MAX_EVENTS, _MAX_EVENTS_SECONDS)

    def _find_cancelled(self) -> None:
        waiting = [call for call, _ in (*self._work.singles, *self._work.infers)]
        for call in waiting:
            call.watch()
        until = time.monotonic() + _CANCELLED_SECONDS
        while waiting and (left := until - time.monotonic()) > 0:
            self._poll(left)

    def _do_work(self) -> None:
        """Answer the single calls and take one step of one batch."""
        if singles := self._work.take_singles():
            self._answer_together(singles, self._data.predict)
        if infers := self._work.take_infers():
            self._answer_together(infers, self._data.infer)
        if self._work.batches:
            self._step(self._work.batches.popleft())
        for call, answer in self._work.take_handed_back():
            self._finish(call, answer)

    def _look(self) -> None:
        """Give up what takes too long or too much, and read on."""
        self._end_silent()
        pressed = self.busy and self._limits.memory_is_short()
        self._shed_long_reads(pressed)
        for reader in self._readers.values():
            for call, error in reader.take_overdue():
                self._finish(call, error)
            reader.read()
        self._answers.give_up_unread(pressed or self._limits.bytes.is_full)

    def _shed_long_reads(self, pressed: bool) -> None:
        """Give up requests that should be small and are not, while memory is short and after."""
        now = time.monotonic()
        if pressed:
            self._careful_until = now + _CAREFUL_SECONDS
        careful = now < self._careful_until
        self._readers[HOT_METHODS[0]].at_once = _CAREFUL_READS if careful else sys.maxsize
        if careful:
            self._poll(0)  # what has come by now is not given up
            for reader in self._readers.values():
                for call in reader.take_unreserved(_LONG_READ_SECONDS):
                    self._finish(call, no_memory())

    def _ended(self, call: ServerCall) -> None:
        """Wait for the next look: whether the caller is gone shows in an event of its own."""
        call.watch()
        self._silent.append(call)

    def _end_silent(self) -> None:
        """Answer the calls whose requests ended; a cancelled one has been closed by now."""
        for call in self._silent:
            self._finish(call, Abandoned("the caller is gone") if call.closed else NoRequest())
        self._silent.clear()

    def _admit(self, reader: RequestReader, call: ServerCall) -> None:
        if metadata_is_too_large(call.metadata):
            self._refuse(call, self._metadata_too_large)
        elif self._admits and not self._admits(call.metadata):
            self._refuse(call, self._unauthenticated)
        elif self.open >= self._limits.queue.limit:
            self._refuse(call, self._too_many)
        else:
            self.open += 1
            reader.add(call)

    def _add_single(self, call: ServerCall, request: bytes) -> None:
        if len(request) <= SMALL_BYTES:
            self._work.singles.append((call, request))
        elif self._hold(call, request):
            # By itself and at once: larger than most models take, it is likely to be refused.
            self._answer_together([(call, request)], self._data.predict)

    def _add_batch(self, call: ServerCall, request: bytes) -> None:
        if self._hold(call, request):
            self._begin(call, request, self._data.batch_predict)

    def _add_infer(self, call: ServerCall, request: bytes) -> None:
        if len(request) <= SMALL_BYTES:
            self._work.infers.append((call, request))
        elif self._hold(call, request):
            self._begin(call, request, self._data.infer_in_steps)

    def _hold(self, call: ServerCall, request: bytes) -> bool:
        """Count the memory of a request as in use, or refuse it."""
        size = COPIES * len(request)
        if not self._limits.bytes.take(size):
            self._finish(call, no_memory())
            return False
        call.held = size
        return True

    def _begin(self, call: ServerCall, request: bytes, answer: InSteps) -> None:
        call.watch()
        # The first step, which checks and admits, at once: it may be refused.
        self._step(Batch(call, answer(request, False), partial(answer, request, True)))

    def _answer_together(
        self, waiting: Sequence[tuple[ServerCall, bytes]], answer: Together
    ) -> None:
        wanted = [(call, request) for call, request in waiting if not self._drop(call)]
        began = time.thread_time()
        answers = answer([request for _, request in wanted], False)
        if len(wanted) >= _MIN_SAMPLE:
            self._limits.queue.record(len(wanted), time.thread_time() - began)
        for (call, request), found in zip(wanted, answers, strict=True):
            if isinstance(found, NotInMemory):
                call.watch()
                self._hand_over(call, partial(_answer_alone, answer, request))
            else:
                self._finish(call, found)

    def _step(self, batch: Batch[ServerCall]) -> None:
        call = batch.call
        try:
            if not self._drop(call):
                next(batch.steps)
                self._work.batches.append(batch)
        except StopIteration as end:
            self._finish(call, end.value)
        except NotInMemory:
            again = partial(complete, batch.again(), lambda: not call.abandoned)
            self._hand_over(call, again)
        except Exception as error:
            self._finish(call, error)

    def _drop(self, call: ServerCall) -> bool:
        """End the call without computing anything when nobody waits for it."""
        if call.abandoned:
            self._finish(call, Abandoned("the caller no longer waits"))
            return True
        return False

    def _finish(self, call: ServerCall, answer: Answer) -> None:
        """Send the answer or the error, and end the call."""
        self.open -= 1
        if call.held:
            self._limits.bytes.release(call.held)
            call.held = 0
        if isinstance(answer, Exception):
            self._refuse(call, refusal_of(answer, call))
        else:
            call.rows, call.version = answer.rows, answer.version
            self._answers.send(call, answer.response)
            self._observer.ended(call, 0)

    def _refuse(self, call: ServerCall, refusal: Refusal) -> None:
        self._answers.refuse(call, refusal)
        self._observer.ended(call, refusal.code)

    def _hand_over(self, call: ServerCall, work: Callable[[], Answer]) -> None:
        """Let a thread of the pool load what the call needs; it stays one of the open calls."""

        def run() -> None:
            answer: Answer = Abandoned("the caller no longer waits")
            try:
                if not call.abandoned:
                    answer = work()
            except Exception as error:
                answer = as_value(error)
            self._work.hand_back(call, answer)

        self._work.hand_over()
        self._pool.submit(run)


def _answer_alone(answer: Together, request: bytes) -> Answer:
    return answer([request], True)[0]
