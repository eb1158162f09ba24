"""FeedbackService, bytes in and bytes out: what callers say of answers, checked and kept."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent import futures

from mlpserve.v1 import feedback_pb2
from mlpserve_model import StoreError
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane.predictions import Steps
from mlpserve_server.dataplane.query import Result
from mlpserve_server.dataplane.reports import ReportReader
from mlpserve_server.dataplane.wire import has_more_fields
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
        self._pool = futures.ThreadPoolExecutor(_WRITES_AT_ONCE, thread_name_prefix="reports")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def report(self, request: bytes, source: str, scope: Scope = ALL) -> Steps:
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
        if has_more_fields(request, MAX_REPORTS):
            message = f"expected a ReportRequest of at most {MAX_REPORTS} reports: send several"
            raise InvalidInput("reports", message)
        reports = codec.parse(feedback_pb2.ReportRequest, request).reports
        if not reports:
            raise InvalidInput("reports", "no reports, expected at least 1")
        keys, now = self._keys(), time.time()
        records = [
            self._reader.record(report, f"reports[{place}]", keys, source, now, scope)
            for place, report in enumerate(reports)
        ]
        if seconds := self._quota.take(source, len(records)):
            raise QuotaExceeded(seconds)
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
        """Write some reports at once and return how many were new."""
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
        if failure is not None:
            log.error("cannot keep reports", extra={"reason": str(failure)})
            message = "reports cannot be kept at the moment: send them again later"
            raise NotReady(message) from failure
        return recorded

    def _count(self, record: ReportRecord) -> None:
        kind = "audit" if record.audit else "volunteered"
        answer = "right" if record.right else "wrong"
        self._observer.count(_REPORTS, record.model, str(record.version), kind, answer)


def _chunks(records: list[ReportRecord]) -> Iterator[list[ReportRecord]]:
    for first in range(0, len(records), _WRITES_AT_ONCE):
        yield records[first : first + _WRITES_AT_ONCE]
