"""Calls of the direct transport that come while the queue is full, admitted by their models."""

from collections import Counter
from collections.abc import Callable
from itertools import islice

from mlpserve_server.dataplane.fair_shares import INFER_NAME, SELECTED_NAME, FairShares, NamePath
from mlpserve_server.transport.grpc_core import ServerCall
from mlpserve_server.transport.work_queue import WorkQueue

__all__ = ["MAX_UNJUDGED", "MAX_UNREAD_BATCHES", "FairAdmission"]

# Calls beyond the limit whose requests are being read.
MAX_UNJUDGED = 256
# Batches beyond it that wait to be read: few are read at a time, as they are large.
MAX_UNREAD_BATCHES = 16

_OnRequest = Callable[[ServerCall, bytes], None]


class FairAdmission:
    """Judges calls whose model was not known on their arrival; for the event loop's thread.

    To read a request costs more than a refusal unread. So only servers of several models do it, and
    only while the queue is full; the waiting calls are counted only then, too.

    Args:
        shares: What each model may take.
        work: Where calls wait.
        refuse: Refuses a call.

    """

    def __init__(
        self,
        shares: FairShares,
        work: WorkQueue[ServerCall],
        refuse: Callable[[ServerCall], None],
    ) -> None:
        self._shares = shares
        self._work = work
        self._refuse = refuse
        self._unjudged: set[ServerCall] = set()
        self._began = 0.0
        self._counts: Counter[str] = Counter()
        self._counted = [0, 0]  # of the singles and of the infers that wait

    @property
    def has_room(self) -> bool:
        """Whether another request may be read to judge its call."""
        return len(self._unjudged) < MAX_UNJUDGED

    def expect(self, call: ServerCall) -> None:
        """Judge this call when its request is here."""
        self._unjudged.add(call)

    def discard(self, call: ServerCall) -> None:
        """Judge this call no more: it has ended."""
        self._unjudged.discard(call)

    def selected(self, add: _OnRequest) -> _OnRequest:
        """Return what adds a request of mlpserve.v1 unless its call is judged and refused."""
        return lambda call, request: self._add(add, SELECTED_NAME, call, request)

    def infer(self, add: _OnRequest) -> _OnRequest:
        """Return what adds a ModelInferRequest unless its call is judged and refused."""
        return lambda call, request: self._add(add, INFER_NAME, call, request)

    def _add(self, add: _OnRequest, path: NamePath, call: ServerCall, request: bytes) -> None:
        if call in self._unjudged:
            self._unjudged.discard(call)
            model = self._shares.model_of(path, request)
            if not self._shares.admits(model, self._waiting()):
                self._refuse(call)
                return
        add(call, request)

    def _waiting(self) -> Counter[str]:
        """Return the number of waiting calls by their models."""
        work = self._work
        if work.began != self._began:  # since then, the calls counted have been taken out
            self._began, self._counts, self._counted = work.began, Counter(), [0, 0]
        self._count(SELECTED_NAME, work.singles, 0)
        self._count(INFER_NAME, work.infers, 1)
        return self._counts + Counter(work.count_batches())

    def _count(self, path: NamePath, queue: list[tuple[ServerCall, bytes]], place: int) -> None:
        for _, request in islice(queue, self._counted[place], None):
            self._counts[self._shares.model_of(path, request)] += 1
        self._counted[place] = len(queue)
