"""A report and its receipt, checked: from what a caller sends to the record that is kept."""

import functools
from itertools import chain
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
from mlpserve_model.store.evidence.records import MAX_NOTE, ReportRecord
from mlpserve_server.dataplane import tensors
from mlpserve_server.dataplane.query import Float32
from mlpserve_server.errors import InvalidInput, NotReady
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from mlpserve_server.security.scope import Scope

__all__ = ["ReportReader"]

_KEPT_MANIFESTS = 64
_KEPT_MODELS = 16


class _Signed(NamedTuple):
    """A receipt that was verified, and the version that it is of."""

    data: bytes
    receipt: Receipt
    manifest: Manifest


class ReportReader:
    """Makes records of reports whose receipts are genuine; for any thread.

    Args:
        models: what the versions are read from.

    """

    def __init__(self, models: Models) -> None:
        self._models = models
        # The models of the last reports, mostly those of the next too.
        self._recent: tuple[ModelManager, ...] = ()
        self._stored_manifest = functools.lru_cache(_KEPT_MANIFESTS)(_stored_manifest)

    def record(
        self,
        report: feedback_pb2.Report,
        field: str,
        keys: ReceiptKeys,
        source: str,
        now: float,
        scope: Scope,
    ) -> ReportRecord:
        """Return what is to be kept of a report; raise InvalidInput, ModelForbidden or NotReady."""
        signed = self._verified(report.receipt, f"{field}.receipt", keys, scope)
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

    def _verified(self, data: bytes, field: str, keys: ReceiptKeys, scope: Scope) -> _Signed:
        try:
            manager, receipt = self._signed(data, keys)
        except InvalidReceipt as error:
            raise InvalidInput(field, str(error)) from error
        scope.require(manager.store.model)
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
        """Return the model whose answer a receipt is for: the tag covers its name, not the rest.

        So each model costs a hash for each key: with 500 models and 16 keys, a request of 1,000
        reports on two models by turns took 15 s when the last model alone was tried first.
        """
        managers = self._models.managers
        recent = [m for m in self._recent if managers.get(m.store.model) is m]
        others = (m for m in managers.values() if m not in recent)
        for manager in chain(recent, others):
            try:
                receipt = keys.verify(data, manager.store.model)
            except InvalidReceipt:
                if len(managers) == 1 or len(data) != RECEIPT_BYTES:
                    raise
            else:
                before = (m for m in recent if m is not manager)
                self._recent = (manager, *before)[:_KEPT_MODELS]
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
