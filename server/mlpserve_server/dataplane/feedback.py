"""FeedbackService, bytes in and bytes out: what callers say of answers, checked and kept."""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import NamedTuple

from mlpserve.v1 import feedback_pb2
from mlpserve_model import CorruptVersion, Manifest, StoreError, VersionNotFound
from mlpserve_model.store.evidence.receipts import (
    RECEIPT_BYTES,
    InvalidReceipt,
    Receipt,
    ReceiptKeys,
    weights_of,
)
from mlpserve_model.store.evidence.records import MAX_NOTE, FeedbackPlace, ReportRecord
from mlpserve_server.dataplane import codec, tensors
from mlpserve_server.dataplane.predictions import Steps
from mlpserve_server.dataplane.query import Float32, Result
from mlpserve_server.dataplane.wire import has_more_fields
from mlpserve_server.errors import InvalidInput, NotReady, QuotaExceeded
from mlpserve_server.evidence.quota import Quota
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.observability.observer import Observer

__all__ = ["MAX_REPORTS", "FeedbackDesk"]

# In one request; each is a file.
MAX_REPORTS = 1000
# A write to a disk or bucket mostly waits.
_WRITES_AT_ONCE = 8
_KEPT_MANIFESTS = 64
_REPORTS = "mlpserve_reports_total"
_KNOWN = "mlpserve_reports_known_total"

log = logging.getLogger(__name__)


class _Signed(NamedTuple):
    """A receipt that was verified, and the version that it is of."""

    data: bytes
    receipt: Receipt
    manifest: Manifest


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
        self._models = models
        self._last: ModelManager | None = None  # the model of the last report: mostly the next's
        self._keys = keys
        self._place = place
        self._quota = Quota(rate)
        self._observer = observer
        self._pool = futures.ThreadPoolExecutor(_WRITES_AT_ONCE, thread_name_prefix="reports")
        self._stored_manifest = functools.lru_cache(_KEPT_MANIFESTS)(_stored_manifest)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def report(self, request: bytes, source: str) -> Steps:
        """Answer a ReportRequest with a ReportResponse, both as bytes, some writes in each step.

        A request is refused as a whole before anything of it is kept, except where a write fails.

        Args:
            request: The request.
            source: Who sends it, the fingerprint of a token; "" where there are none.

        Raises:
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
            self._record(report, f"reports[{place}]", keys, source, now)
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
        return Result(response.SerializeToString(), rows=0, version=0)

    def _record(
        self,
        report: feedback_pb2.Report,
        field: str,
        keys: ReceiptKeys,
        source: str,
        now: float,
    ) -> ReportRecord:
        """Return what is to be kept of a report; raise InvalidInput or NotReady."""
        signed = self._verified(report.receipt, f"{field}.receipt", keys)
        receipt, manifest = signed.receipt, signed.manifest
        if len(report.note) > MAX_NOTE:
            raise InvalidInput(
                f"{field}.note",
                f"a note of {len(report.note)} characters, expected at most {MAX_NOTE}",
            )
        truth, right = _truth(report, field, receipt.label, manifest.signature.class_names)
        return ReportRecord(
            tag=signed.data[-16:].hex(),
            model=manifest.model,
            version=receipt.version,
            weights=receipt.weights.hex(),
            answered_at=receipt.answered_at,
            label=receipt.label,
            confidence=receipt.confidence,
            audit=receipt.audit,
            row_hash=receipt.row_hash.hex(),
            truth=truth,
            right=right,
            source=source,
            reported_at=now,
            note=report.note,
            instance=_instance(report, f"{field}.instance", keys, signed),
            receipt=signed.data.hex(),
        )

    def _verified(self, data: bytes, field: str, keys: ReceiptKeys) -> _Signed:
        try:
            manager, receipt = self._signed(data, keys)
        except InvalidReceipt as error:
            raise InvalidInput(field, str(error)) from error
        manifest = self._manifest(manager, receipt.version, field)
        known = weights_of(manifest.digest) == receipt.weights
        if not known or receipt.label >= len(manifest.signature.class_names):
            raise InvalidInput(
                field,
                f"the receipt is of another {manifest.model} version {receipt.version} than the "
                "store has",
            )
        return _Signed(data, receipt, manifest)

    def _signed(self, data: bytes, keys: ReceiptKeys) -> tuple[ModelManager, Receipt]:
        """Return the model whose answer a receipt is for: the tag covers its name, not the rest."""
        managers = sorted(self._models.managers.values(), key=lambda m: m is not self._last)
        for manager in managers:
            try:
                receipt = keys.verify(data, manager.store.model)
            except InvalidReceipt:
                if len(managers) == 1 or len(data) != RECEIPT_BYTES:
                    raise
            else:
                self._last = manager
                return manager, receipt
        raise InvalidReceipt("not a receipt for an answer of a model here, or its key is withdrawn")

    def _manifest(self, manager: ModelManager, version: int, field: str) -> Manifest:
        if model := manager.in_memory(version):
            return model.manifest
        try:
            return self._stored_manifest(manager, version)
        except (VersionNotFound, CorruptVersion) as error:
            message = f"the receipt is of version {version}, which the store no longer has"
            raise InvalidInput(field, message) from error
        except StoreError as error:
            raise NotReady("the store cannot be read at the moment") from error

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


def _stored_manifest(manager: ModelManager, version: int) -> Manifest:
    return manager.store.manifest(version)


def _truth(
    report: feedback_pb2.Report, field: str, label: int, names: tuple[str, ...]
) -> tuple[str | None, bool]:
    """Return the name of the true class, if it was said, and whether the answer was right."""
    match report.WhichOneof("truth"):
        case "class_name":
            if report.class_name not in names:
                shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
                raise InvalidInput(
                    f"{field}.class_name",
                    f"unknown class {report.class_name[:63]!r}: expected one of {shown}",
                )
            return report.class_name, report.class_name == names[label]
        case "right":
            return None, report.right
        case _:
            raise InvalidInput(field, "neither class_name nor right is set, expected one of them")


def _instance(
    report: feedback_pb2.Report, field: str, keys: ReceiptKeys, signed: _Signed
) -> Float32 | None:
    """Return the instance as the network takes it; raise InvalidInput if it is another one."""
    if not report.HasField("instance"):
        return None
    tensor, manifest = report.instance, signed.manifest
    tensors.check_instance(tensor, manifest, field)
    row = tensors.scaled(tensor.data, tensor.dtype, manifest, field)[0]
    if not keys.matches(signed.receipt.row_hash, row, manifest.signature.input_kind == "real"):
        raise InvalidInput(
            field,
            "another instance than the receipt's: expected the values that were sent",
        )
    instance: Float32 = row.reshape(manifest.signature.input_shape)
    return instance


def _chunks(records: list[ReportRecord]) -> Iterator[list[ReportRecord]]:
    for first in range(0, len(records), _WRITES_AT_ONCE):
        yield records[first : first + _WRITES_AT_ONCE]
