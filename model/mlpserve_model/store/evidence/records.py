"""Reports as they are kept: one JSON file each, `MODEL/reports/YYYY-MM-DD/TAG.json`.

The day is that of the answer, in UTC, and the tag that of its receipt: a retry, a replay and a
second replica meet the same file.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import StoreError
from mlpserve_model.format.manifest import NAME
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.place import open_files
from mlpserve_model.store.evidence.receipts import RECEIPT_BYTES
from mlpserve_model.store.location import Location
from mlpserve_model.store.reader import translated

__all__ = [
    "MAX_NOTE",
    "CorruptRecord",
    "FeedbackPlace",
    "ReportRecord",
    "decode_report",
    "encode_report",
]

# Characters of a note, and of a class's name.
MAX_NOTE, _MAX_NAME = 1000, 1000
_MAX_INPUTS = 2**20
_MAX_BYTES = 2**16 + 6 * _MAX_INPUTS  # float32 in base64, and the rest
_MAX_TIME, _MAX_LABEL, _MAX_VERSION = 2**32 - 1, 2**16 - 1, 2**63 - 1
_FORMAT = 1

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TAG = re.compile(r"[0-9a-f]{32}")
_HEX = {
    "tag": _TAG,
    "row_hash": re.compile(r"[0-9a-f]{16}"),
    "weights": re.compile(r"[0-9a-f]{8}"),
    "receipt": re.compile(rf"[0-9a-f]{{{2 * RECEIPT_BYTES}}}"),
    "source": re.compile(r"[0-9a-f]{0,64}"),
}


class CorruptRecord(StoreError):
    """The file is not a report; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRecord:
    """What a caller said of an answer, and the answer's receipt.

    Attributes:
        tag: the receipt's, in hex; the identity of the report.
        model: name of the model.
        version: number of the version that answered.
        weights: first 8 hex digits of the SHA-256 of its weights.
        answered_at: Unix time of the answer, in whole seconds.
        label: the predicted class.
        confidence: its probability.
        audit: whether the answer was drawn for the audit; only such reports speak of accuracy.
        row_hash: the receipt's hash of the instance, in hex.
        truth: name of the true class; None if the caller said right or wrong alone.
        right: whether the predicted class was the true one.
        source: fingerprint of the caller's token, in hex; "" without tokens.
        reported_at: Unix time of the report, in seconds.
        note: free text, which may be hostile.
        instance: the instance as the network took it, float32 in the model's input shape; None
            if it was not sent.
        receipt: the whole receipt, in hex, to be verified with the keys.

    """

    tag: str
    model: str
    version: int
    weights: str = "00000000"
    answered_at: int
    label: int
    confidence: float
    audit: bool
    row_hash: str
    truth: str | None
    right: bool
    source: str
    reported_at: float
    note: str = ""
    instance: NDArray[np.float32] | None = None
    receipt: str

    @property
    def day(self) -> date:
        """The day of the answer, in UTC."""
        return datetime.fromtimestamp(self.answered_at, UTC).date()


_KEYS = frozenset({"format", *ReportRecord.__slots__})


def encode_report(report: ReportRecord) -> bytes:
    """Return the text of a report's file."""
    document: dict[str, Any] = {"format": _FORMAT}
    document |= {name: getattr(report, name) for name in ReportRecord.__slots__}
    if report.instance is not None:
        data = report.instance.astype("<f4").tobytes()
        shape = list(report.instance.shape)
        document["instance"] = {"shape": shape, "float32": base64.b64encode(data).decode()}
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode_report(data: bytes) -> ReportRecord:
    """Return the report in a file's text; raises CorruptRecord."""
    if len(data) > _MAX_BYTES:
        raise CorruptRecord(f"{len(data)} bytes, expected at most {_MAX_BYTES}")
    try:
        document = strict_json.parse(data)
    except ValueError as error:
        raise CorruptRecord(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise CorruptRecord(f"not a report of format {_FORMAT}")
    if document.keys() != _KEYS:
        raise CorruptRecord(f"the fields {sorted(document)[:30]}, expected {sorted(_KEYS)}")
    for name, pattern in (_HEX | {"model": NAME}).items():
        if not isinstance(document[name], str) or not pattern.fullmatch(document[name]):
            raise CorruptRecord(f"{name}: expected text that matches {pattern.pattern}")
    if document["tag"] != document["receipt"][-32:]:
        raise CorruptRecord("the tag is not that of the receipt")
    fields = {name: document[name] for name in _KEYS - {"format", "instance"}}
    _check_numbers(document)
    _check_words(document)
    return ReportRecord(**fields, instance=_instance(document["instance"]))


class FeedbackPlace:
    """The reports below a folder or in a bucket, which need not exist yet.

    Any number of writers may record at once. Raises StoreError for an address that cannot be one;
    the methods raise it when the place cannot be read or written.
    """

    def __init__(self, location: Location | str) -> None:
        self.files = open_files(location)

    def __str__(self) -> str:
        return str(self.files)

    def record(self, report: ReportRecord) -> bool:
        """Keep a report, durable when this returns; False for one whose receipt was reported."""
        name = f"{report.model}/reports/{report.day}/{report.tag}.json"
        with translated(f"cannot write to {self.files}"):
            return self.files.create(name, encode_report(report))

    def reports(
        self,
        model: str,
        since: date | None = None,
        damaged: Callable[[str, str], None] = lambda name, reason: None,
        known: Container[str] = (),
        only: Container[str] | None = None,
    ) -> Iterator[ReportRecord]:
        """Give the reports of a model, by the day of the answer and the tag.

        Args:
            model: Name of the model.
            since: The first day; None is the first there is.
            damaged: Called with the name of each file that is left out, and why.
            known: Tags of reports that are left out, without being read.
            only: Tags of the reports that are read; None is all.

        """

        def is_wanted(name: str) -> bool:
            tag = name.removesuffix(".json")
            return tag not in known and (only is None or tag in only)

        with translated(f"cannot read {self.files}"):
            for day in self.files.folders(f"{model}/reports"):
                if _DAY.fullmatch(day) and (since is None or day >= since.isoformat()):
                    yield from self._of_day(model, day, damaged, is_wanted)

    def models(self) -> list[str]:
        """Return the names of the models that have reports, sorted."""
        with translated(f"cannot read {self.files}"):
            names = [name for name in self.files.folders() if NAME.fullmatch(name)]
            return [name for name in names if "reports" in self.files.folders(name)]

    def _of_day(
        self,
        model: str,
        day: str,
        damaged: Callable[[str, str], None],
        is_wanted: Callable[[str], bool],
    ) -> Iterator[ReportRecord]:
        folder = f"{model}/reports/{day}"
        names = filter(is_wanted, self.files.names(folder))
        for name, data in self.files.contents(folder, names, _MAX_BYTES):
            try:
                if isinstance(data, UnusableFile):
                    raise data
                report = decode_report(data)
                if (report.model, str(report.day), f"{report.tag}.json") != (model, day, name):
                    raise CorruptRecord("it is not the report of its name")
            except (CorruptRecord, UnusableFile) as error:
                damaged(f"{folder}/{name}", str(error))
            else:
                yield report


def _check_numbers(document: Mapping[str, Any]) -> None:
    bounds = {"version": _MAX_VERSION, "answered_at": _MAX_TIME, "label": _MAX_LABEL}
    for name, maximum in bounds.items():
        value = document[name]
        if type(value) is not int or not (name == "version") <= value <= maximum:
            raise CorruptRecord(f"{name}: expected an integer up to {maximum}")
    for name, limit in {"confidence": 1.0, "reported_at": float(_MAX_TIME)}.items():
        value = document[name]
        if type(value) not in (int, float) or not 0 <= value <= limit:
            raise CorruptRecord(f"{name}: expected a number from 0 to {limit:g}")
    for name in ("audit", "right"):
        if type(document[name]) is not bool:
            raise CorruptRecord(f"{name}: expected true or false")


def _check_words(document: Mapping[str, Any]) -> None:
    truth, note = document["truth"], document["note"]
    if truth is not None and not (isinstance(truth, str) and 0 < len(truth) <= _MAX_NAME):
        raise CorruptRecord("truth: expected the name of a class, or null")
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise CorruptRecord(f"note: expected text of at most {MAX_NOTE} characters")


def _instance(value: object) -> NDArray[np.float32] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"shape", "float32"}:
        raise CorruptRecord("instance: expected shape and float32")
    shape, text = value["shape"], value["float32"]
    whole = isinstance(shape, list) and all(type(n) is int and n >= 1 for n in shape)
    if not whole or not 1 <= len(shape) <= 8 or math.prod(shape) > _MAX_INPUTS:
        raise CorruptRecord("instance: the shape is not one")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise CorruptRecord(f"instance: not base64: {error}") from error
    if len(data) != 4 * math.prod(shape):
        raise CorruptRecord("instance: the shape does not fit the values")
    array = np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise CorruptRecord("instance: a value is not finite")
    return array
