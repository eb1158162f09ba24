"""FeedbackService, bytes in and bytes out: what callers say of answers, checked and kept."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent import futures

from mlpserve.v1 import feedback_pb2
from mlpserve_model import StoreError
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane.query import Result
from mlpserve_server.dataplane.reports import ReportReader
from mlpserve_server.errors import InvalidInput, NotReady, QuotaExceeded
from mlpserve_server.evidence.quota import Quota
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.observability.observer import Observer
from mlpserve_server.security.scope import ALL, Scope

__all__ = ["MAX_REPORTS", "FeedbackDesk"]

# In one request; each is a file.
MAX_REPORTS = 1000
# A write to a disk or bucket mostly waits.
_WRITES_AT_ONCE = 8
_REPORTS = "mlpserve_reports_total"
_KNOWN = "mlpserve_reports_known_total"
_LATER = "reports cannot be kept at the moment: send them again later"

log = logging.getLogger(__name__)


class FeedbackDesk:
    """Verifies reports and keeps each of them once.

    Args:
        models: what the versions are read from.
        keys: returns the keys in force that verify receipts.
        place: where reports are kept.
        rate: reports a minute for each source.
        observer: what reports are counted by.

    """

    def __init__(
        self,
        models: Models,
        keys: Callable[[], ReceiptKeys],
        place: FeedbackPlace,
        rate: float,
        observer: Observer,
    ) -> None:
        self._reader = ReportReader(models)
        self._keys = keys
        self._place = place
        self._quota = Quota(rate)
        self._observer = observer
        self._failing = False  # the last write
        self._trial = threading.Lock()  # held by the request that tries again
        self._pool = futures.ThreadPoolExecutor(_WRITES_AT_ONCE, thread_name_prefix="reports")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def report(
        self, request: bytes, source: str, scope: Scope = ALL
    ) -> Generator[None, None, Result]:
        """Answer a ReportRequest with a ReportResponse, both as bytes, some writes in each step.

        A request is refused as a whole before anything of it is kept, except where a write fails.

        Args:
            request: The request.
            source: Who sends it, the fingerprint of a token; "" where there are none.
            scope: The models that it may report on.

        Raises:
            ModelForbidden: A report is on an answer of another model.
            InvalidInput: A report is wrong; the field names it.
            QuotaExceeded: The source has made too many.
            NotReady: The place cannot be written, or the store not be read; a retry is safe.

        """
        reports = codec.parse(feedback_pb2.ReportRequest, request).reports
        if not 0 < len(reports) <= MAX_REPORTS:
            message = f"{len(reports)} reports, expected 1 to {MAX_REPORTS}: send several requests"
            raise InvalidInput("reports", message)
        # Before anything is verified: forged receipts take the most time, one hash a key and model.
        if seconds := self._quota.take(source, len(reports)):
            raise QuotaExceeded(seconds)
        keys, now = self._keys(), time.time()
        records = [
            self._reader.record(report, f"reports[{place}]", keys, source, now, scope)
            for place, report in enumerate(reports)
        ]
        # Of two reports on one answer the first counts, whichever would be written first.
        firsts = {record.tag: record for record in reversed(records)}
        recorded = 0
        for chunk in _chunks([*firsts.values()]):
            yield
            recorded += self._keep(chunk)
        known = len(records) - recorded
        response = feedback_pb2.ReportResponse(recorded=recorded, known=known)
        return Result(response.SerializeToString())

    def _keep(self, records: list[ReportRecord]) -> int:
        """Write some reports at once and return how many were new.

        While the place fails, one request at a time tries it, and the others are refused at once: a
        bucket that hangs would keep each of them for half a minute.
        """
        if not self._failing:
            return self._write(records)
        if not self._trial.acquire(blocking=False):
            raise NotReady(_LATER)
        try:
            return self._write(records)
        finally:
            self._trial.release()

    def _write(self, records: list[ReportRecord]) -> int:
        writes = [self._pool.submit(self._place.record, record) for record in records]
        futures.wait(writes)
        recorded, failure = 0, None
        for record, write in zip(records, writes, strict=True):
            try:
                is_new = write.result()
            except StoreError as error:
                failure = error  # the others are kept all the same
                continue
            if is_new:
                recorded += 1
                self._count(record)
            else:
                self._observer.count(_KNOWN)
        self._note(failure)
        if failure is not None:
            raise NotReady(_LATER) from failure
        return recorded

    def _note(self, failure: StoreError | None) -> None:
        """Remember whether the place can be written, and log when that changes."""
        if failure is not None and not self._failing:
            log.error("cannot keep reports", extra={"reason": str(failure)})
        if failure is None and self._failing:
            log.info("reports can be kept again")
        self._failing = failure is not None

    def _count(self, record: ReportRecord) -> None:
        kind = "audit" if record.audit else "volunteered"
        answer = "right" if record.right else "wrong"
        self._observer.count(_REPORTS, record.model, str(record.version), kind, answer)


def _chunks(records: list[ReportRecord]) -> Iterator[list[ReportRecord]]:
    for first in range(0, len(records), _WRITES_AT_ONCE):
        yield records[first : first + _WRITES_AT_ONCE]
