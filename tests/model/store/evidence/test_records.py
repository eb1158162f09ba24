import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_model import StoreError
from mlpserve_model.store.evidence.records import (
    MAX_NOTE,
    CorruptRecord,
    FeedbackPlace,
    ReportRecord,
    decode_report,
    encode_report,
)
from tests.support.object_store import HAS_MOTO

NOON = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())


def report(serial: int = 0, answered_at: int = NOON, **more: Any) -> ReportRecord:
    receipt = f"{serial:098x}"
    fields: dict[str, Any] = {
        "tag": receipt[-32:],
        "model": "digits",
        "version": 3,
        "answered_at": answered_at,
        "label": 4,
        "confidence": 0.75,
        "audit": True,
        "row_hash": "00" * 8,
        "truth": "seven",
        "right": False,
        "source": "",
        "reported_at": answered_at + 60.5,
        "receipt": receipt,
    }
    return ReportRecord(**fields | more)


BUCKET = pytest.param(
    "bucket", marks=pytest.mark.skipif(not HAS_MOTO, reason="moto is not installed")
)


@pytest.fixture(params=["folder", BUCKET])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> FeedbackPlace:
    if request.param == "folder":
        return FeedbackPlace(tmp_path / "feedback")
    return FeedbackPlace(str(request.getfixturevalue("address")))


def test_a_report_is_read_as_it_was_recorded(place: FeedbackPlace) -> None:
    instance = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    one = report(note="'☃' \n", instance=instance, source="ab12", truth=None, right=True)
    assert place.record(one)
    (read,) = place.reports("digits")
    assert replace(read, instance=None) == replace(one, instance=None)
    np.testing.assert_array_equal(read.instance, instance)
    assert read.instance is not None
    assert read.instance.dtype == np.float32


def test_a_second_report_of_a_receipt_changes_nothing(place: FeedbackPlace) -> None:
    assert place.record(report(right=True, truth="four"))
    assert not place.record(report(right=False, truth="seven", reported_at=NOON + 90_000))
    assert [r.right for r in place.reports("digits")] == [True]


def test_reports_are_by_model_and_from_a_day_on(place: FeedbackPlace) -> None:
    day = 86_400
    for n in range(4):
        place.record(report(n, NOON + n * day))
    place.record(report(9, model="letters"))
    assert [r.tag for r in place.reports("digits")] == [report(n).tag for n in range(4)]
    since = report(0, NOON + 2 * day).day
    assert [r.answered_at for r in place.reports("digits", since)] == [
        NOON + 2 * day,
        NOON + 3 * day,
    ]
    assert place.models() == ["digits", "letters"]


def test_nothing_is_in_a_place_that_is_not_there_yet(place: FeedbackPlace) -> None:
    assert not list(place.reports("digits"))
    assert not place.models()


def test_each_report_of_writers_at_once_is_there_once(place: FeedbackPlace) -> None:
    made: list[bool] = []
    other = FeedbackPlace(str(place))

    def write(to: FeedbackPlace, offset: float) -> None:
        made.extend(to.record(report(n, reported_at=NOON + offset)) for n in range(12))

    threads = [threading.Thread(target=write, args=(p, n)) for n, p in enumerate((place, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 12
    assert len(list(place.reports("digits"))) == 12


def test_damaged_files_are_told_and_left_out(place: FeedbackPlace) -> None:
    for n in (1, 2, 3):
        place.record(report(n))
    folder = "digits/reports/2026-01-31"
    whole = encode_report(report(4))
    spoiled = {
        f"{report(4).tag}.json": whole[: len(whole) // 2],  # torn
        f"{report(5).tag}.json": encode_report(report(1)),  # another's
        f"{report(6).tag}.json": encode_report(report(6)) + b" " * 7_000_000,  # oversized
        f"{report(7).tag}.json": encode_report(report(7, model="letters")),
        f"{report(8).tag}.json": encode_report(report(8, NOON + 86_400)),
        "notes.txt": b"what is this",
    }
    for name, data in spoiled.items():
        place.files.create(f"{folder}/{name}", data)
    told: list[str] = []
    found = [r.tag for r in place.reports("digits", damaged=lambda name, _: told.append(name))]
    assert found == [report(n).tag for n in (1, 2, 3)]
    assert sorted(told) == sorted(f"{folder}/{name}" for name in spoiled)


def test_links_and_what_killed_writers_left_are_not_read(tmp_path: Path) -> None:
    place = FeedbackPlace(tmp_path)
    place.record(report(1))
    day = tmp_path / "digits/reports/2026-01-31"
    (day / f".{report(2).tag}.json.12-ab.tmp").write_bytes(b"{")
    (day / f"{report(3).tag}.json").symlink_to("/etc/passwd")
    (tmp_path / "digits/reports/2026-02-01").symlink_to(day)
    assert [r.tag for r in place.reports("digits")] == [report(1).tag]


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = FeedbackPlace(tmp_path)
    place.record(report(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            place.record(report(2))
    assert len([*tmp_path.rglob("*.json*")]) == 1
    assert place.record(report(2))


CHANGES: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("not a report of format 1", lambda d: d.update(format=2)),
    ("the fields", lambda d: d.pop("note")),
    ("the fields", lambda d: d.update(more=1)),
    ("tag", lambda d: d.update(tag="../../../../etc/passwd")),
    ("the tag is not that of the receipt", lambda d: d.update(tag="f" * 32)),
    ("receipt", lambda d: d.update(receipt="00")),
    ("model", lambda d: d.update(model="../digits")),
    ("version", lambda d: d.update(version=0)),
    ("version", lambda d: d.update(version=True)),
    ("version", lambda d: d.update(version=10**30)),
    ("answered_at", lambda d: d.update(answered_at=-1)),
    ("label", lambda d: d.update(label=1.5)),
    ("confidence", lambda d: d.update(confidence=1.01)),
    ("confidence", lambda d: d.update(confidence="1")),
    ("audit", lambda d: d.update(audit=1)),
    ("right", lambda d: d.update(right=None)),
    ("truth", lambda d: d.update(truth="")),
    ("truth", lambda d: d.update(truth=["seven"])),
    ("note", lambda d: d.update(note="n" * (MAX_NOTE + 1))),
    ("source", lambda d: d.update(source="<script>")),
    ("instance", lambda d: d.update(instance=[0.5])),
    ("instance: the shape is not one", lambda d: d["instance"].update(shape=[2, -3])),
    ("instance: the shape is not one", lambda d: d["instance"].update(shape=[2**40])),
    ("instance: the shape does not fit", lambda d: d["instance"].update(shape=[7])),
    ("instance: not base64", lambda d: d["instance"].update(float32="*")),
    ("instance: a value is not finite", lambda d: d["instance"].update(float32="AADAfwAAwH8AAMB/")),
]


@pytest.mark.parametrize(("expected", "change"), CHANGES)
def test_each_field_is_checked(expected: str, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(encode_report(report(instance=np.zeros(3, np.float32))))
    change(document)
    with pytest.raises(CorruptRecord, match=expected):
        decode_report(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"format":1}'])
def test_what_is_not_a_report_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode_report(data)
