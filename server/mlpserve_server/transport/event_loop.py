"""The event loop of the direct transport: one thread that takes calls and answers them."""

import logging
import threading
import time
from functools import partial

import grpc

from mlpserve_server.dataplane.admission import Limits
from mlpserve_server.dataplane.predictions import DataPlane
from mlpserve_server.errors import MetadataTooLarge, ServingError, Unauthenticated
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.credentials import ScopeOf
from mlpserve_server.security.scope import ALL
from mlpserve_server.transport.call_runner import CallRunner
from mlpserve_server.transport.fair_admission import MAX_UNREAD_BATCHES, FairAdmission
from mlpserve_server.transport.grpc_core import CompletionQueue, ServerCall
from mlpserve_server.transport.handlers import too_many
from mlpserve_server.transport.reading import OnRequest, Reading
from mlpserve_server.transport.request_reader import RequestReader
from mlpserve_server.transport.services import (
    HOT_METHODS,
    MAX_METADATA_BYTES,
    metadata_is_too_large,
)
from mlpserve_server.transport.status import refusal_of

__all__ = ["EventLoop"]

# Its requests are large, and few are read at a time: what they take is bounded by their rows.
_, _BATCH, _ = HOT_METHODS

# Calls of a method that the core may hand over before it has to be asked again.
_ACCEPTED_AT_ONCE = 64
# Maximum of events, three a call, and of their time, before some work is done.
_MAX_EVENTS, _MAX_EVENTS_SECONDS = 512, 0.005
# How long to wait for the events of cancelled calls.
_CANCELLED_SECONDS = 0.001

log = logging.getLogger(__name__)


class EventLoop:
    """The thread that takes calls, answers them, and works on batches in between."""

    def __init__(
        self,
        server: grpc.Server,
        data: DataPlane,
        limits: Limits,
        scope_of: ScopeOf | None,
        observer: Observer,
    ) -> None:
        self._limits = limits
        self._scope_of = scope_of
        # Made once: a refusal costs as little as can be.
        self._too_many = refusal_of(too_many())
        self._unauthenticated = refusal_of(Unauthenticated())
        self._metadata_too_large = refusal_of(MetadataTooLarge(MAX_METADATA_BYTES))
        self._runner = CallRunner(data, limits, observer, is_scoped=scope_of is not None)
        self._work = self._runner.work
        self._calls = self._runner.calls
        self._fair = (
            FairAdmission(limits.shares, self._work, self._refuse_waiting)
            if limits.shares
            else None
        )
        single: OnRequest = self._runner.add_single
        batch: OnRequest = self._runner.add_batch
        infer: OnRequest = self._runner.add_infer
        if self._fair:
            single, batch = self._fair.selected(single), self._fair.selected(batch)
            infer = self._fair.infer(infer)
        inflating = self._runner.inflating
        self._reading = Reading(limits, inflating(single), inflating(batch), inflating(infer))
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="direct", daemon=True)
        self._queue = CompletionQueue(server, HOT_METHODS)

    @property
    def open(self) -> int:
        """The calls taken on and not yet answered."""
        return self._calls.count

    @property
    def computing(self) -> bool:
        """Whether there is a call whose request is here and whose answer is not."""
        return self.open > self._reading.incomplete

    @property
    def busy(self) -> bool:
        """Whether there is any call, also one that is being read or sent."""
        return bool(self.open or self._calls.sender)

    def start(self) -> None:
        """Begin to take calls; the server must have started."""
        for method, reader in self._reading.readers.items():
            self._queue.accept(method, partial(self._admit, reader), _ACCEPTED_AT_ONCE)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is at hand, and end; the server must have stopped."""
        self._stopping = True
        self._thread.join()
        self._runner.close()

    def _run(self) -> None:
        while not self._queue.ended:
            try:
                if self._poll(self._work.patience(self.busy)):
                    self._poll_on()
                if self._work:
                    self._work_once()
                if self._work.housekeeping_is_due():
                    self._give_up_overdue()
                if self._stopping and not self._work:
                    self._queue.shut_down()
            except Exception:
                log.exception("the direct transport failed at an event")

    def _poll(self, seconds: float) -> bool:
        return self._queue.poll(seconds, _MAX_EVENTS, _MAX_EVENTS_SECONDS)

    def _poll_on(self) -> None:
        until = self._work.events_until()
        while time.monotonic() < until and self._poll(0):
            pass

    def _work_once(self) -> None:
        if self._work.has_backlog():
            self._find_cancelled()
        self._work.begin()
        self._runner.work_once()
        self._work.end()

    def _find_cancelled(self) -> None:
        waiting = [call for call, _ in (*self._work.singles, *self._work.infers)]
        for call in waiting:
            call.watch()
        until = time.monotonic() + _CANCELLED_SECONDS
        while not all(c.closed for c in waiting) and (left := until - time.monotonic()) > 0:
            self._poll(left)

    def _give_up_overdue(self) -> None:
        """Give up what takes too long or too much, and read on."""
        pressed = self.busy and self._limits.memory_is_short()
        for call, error in self._reading.give_up(pressed, partial(self._poll, 0)):
            self._finish(call, error)
        self._calls.sender.give_up_unread(pressed)

    def _admit(self, reader: RequestReader, call: ServerCall) -> None:
        if metadata_is_too_large(call.metadata):
            self._calls.refuse(call, self._metadata_too_large)
        elif self._scope_of and not self._is_admitted(call):
            self._calls.refuse(call, self._unauthenticated)
        elif not self._is_full(reader):
            self._take_on(reader, call)
        elif self._fair and self._fair.has_room and _may_be_read(reader, call):
            self._fair.expect(call)
            self._take_on(reader, call)
        elif last := reader.make_room(call):
            self._finish(last, too_many())
            self._take_on(reader, call)
        else:
            self._calls.refuse(call, self._too_many)

    def _refuse_waiting(self, call: ServerCall) -> None:
        self._calls.finish(call, too_many())

    def _finish(self, call: ServerCall, error: ServingError) -> None:
        """End a call whose request is not here."""
        if self._fair:
            self._fair.discard(call)
        self._calls.finish(call, error)

    def _is_admitted(self, call: ServerCall) -> bool:
        """Return True, and leave the scope on the call, if it has a token that is in force."""
        scope = self._scope_of(call.metadata) if self._scope_of else ALL
        if scope is not None:
            call.scope = scope
        return scope is not None

    def _take_on(self, reader: RequestReader, call: ServerCall) -> None:
        self._calls.count += 1
        reader.add(call)

    def _is_full(self, reader: RequestReader) -> bool:
        """Return True if as many calls wait as may; calls without a request make nobody wait."""
        limit, calls = self._limits.queue.limit, self._calls.count
        if calls < limit:  # nearly always, and cheaper to tell
            return False
        return max(calls - self._reading.idle, reader.unread) >= limit


def _may_be_read(reader: RequestReader, call: ServerCall) -> bool:
    """Return True unless too many batches wait to be read already."""
    return call.method != _BATCH or reader.unread < MAX_UNREAD_BATCHES
