"""Reports: what is kept, what is refused and with which words, and that each is kept once."""

import hashlib
import os
import signal
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store, scale_pixels
from mlpserve_model.store.evidence.receipts import Receipt, ReceiptKeys, weights_of
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from tests.server.evidence.conftest import KEY, NEXT, WriteKeys
from tests.support.publishing import Publish
from tests.support.server import Refusal, Refuse, Run, Serve, Stubs
from tests.support.waiting import eventually

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
SCALED = scale_pixels(PIXELS, 16)
NAMES = ("circle", "square", "star")


def tensor(x: Any) -> pb.Tensor:
    dtype = pb.DATA_TYPE_UINT8 if x.dtype == np.uint8 else pb.DATA_TYPE_FLOAT32
    return pb.Tensor(dtype=dtype, shape=x.shape, data=x.tobytes())


def answered(stubs: Stubs, x: Any = PIXELS) -> pb.PredictResponse:
    """An answer with its receipt."""
    request = pb.PredictRequest(instance=tensor(x), receipt=True)
    response: pb.PredictResponse = stubs.prediction.Predict(request)
    return response


def receipts(stubs: Stubs, rows: int) -> list[bytes]:
    x = np.random.default_rng(0).random((rows, 12), dtype=np.float32)
    request = pb.BatchPredictRequest(instances=tensor(x), receipts=True)
    return list(stubs.prediction.BatchPredict(request).receipts)


def request(*reports: fb.Report) -> fb.ReportRequest:
    return fb.ReportRequest(reports=reports)


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


@pytest.fixture
def start(serve: Serve, write_keys: WriteKeys, tmp_path: Path) -> Callable[..., Stubs]:
    """Start a server that gives receipts and takes reports."""

    def start(**settings: Any) -> Stubs:
        keys = tmp_path / "keys"
        defaults = {
            "receipt_keys": keys if keys.exists() else write_keys(KEY),
            "feedback": tmp_path / "feedback",
        }
        stubs = serve(**(defaults | settings))
        eventually(stubs.serving)
        return stubs

    return start


def kept(place: FeedbackPlace) -> list[ReportRecord]:
    """All reports; fails for a damaged one."""

    def damaged(name: str, reason: str) -> None:
        raise AssertionError(f"{name}: {reason}")

    return list(place.reports("mnist", damaged=damaged))


@pytest.mark.parametrize("sent", [PIXELS, SCALED, PIXELS.reshape(12)])
def test_a_report_is_kept_with_what_its_receipt_says(
    sent: Any, store: Store, publish: Publish, start: Callable[..., Stubs], place: FeedbackPlace
) -> None:
    version = publish()
    stubs = start(audit_share=1)
    answer = answered(stubs, sent)
    truth = NAMES[answer.label - 1]
    report = fb.Report(
        receipt=answer.receipt, class_name=truth, note="seen twice ☃", instance=tensor(sent)
    )
    assert stubs.feedback.Report(request(report)) == fb.ReportResponse(recorded=1)
    (record,) = kept(place)
    assert (record.model, record.version) == ("mnist", version)
    assert (record.label, record.truth, record.right) == (answer.label, truth, False)
    assert (record.audit, record.note, record.source) == (True, "seen twice ☃", "")
    assert record.weights == weights_of(store.manifest(version).digest).hex()
    assert record.answered_at <= record.reported_at
    assert record.receipt == answer.receipt.hex()
    np.testing.assert_array_equal(record.instance, SCALED)


def test_right_and_wrong_need_no_class(
    publish: Publish, start: Callable[..., Stubs], place: FeedbackPlace
) -> None:
    publish()
    stubs = start()
    one, two, three = receipts(stubs, 3)
    labels = [ReceiptKeys([KEY]).verify(r, "mnist").label for r in (one, two, three)]
    reports = (
        fb.Report(receipt=one, right=True),
        fb.Report(receipt=two, right=False),
        fb.Report(receipt=three, class_name=NAMES[labels[2]]),
    )
    assert stubs.feedback.Report(request(*reports)).recorded == 3
    found = {record.receipt: (record.truth, record.right) for record in kept(place)}
    assert found == {
        one.hex(): (None, True),
        two.hex(): (None, False),
        three.hex(): (NAMES[labels[2]], True),
    }


def test_a_retry_or_another_truth_changes_nothing(
    publish: Publish, start: Callable[..., Stubs], place: FeedbackPlace
) -> None:
    publish()
    stubs = start()
    one, two = receipts(stubs, 2)
    first = request(fb.Report(receipt=one, right=True))
    assert stubs.feedback.Report(first) == fb.ReportResponse(recorded=1)
    assert stubs.feedback.Report(first) == fb.ReportResponse(known=1)
    again = request(
        fb.Report(receipt=one, right=False),
        fb.Report(receipt=two, right=False),
        fb.Report(receipt=two, right=True),
    )
    assert stubs.feedback.Report(again) == fb.ReportResponse(recorded=1, known=2)
    assert sorted(record.right for record in kept(place)) == [False, True]


def test_two_replicas_that_get_the_same_reports_at_once_keep_each_once(
    publish: Publish, start: Callable[..., Stubs], place: FeedbackPlace
) -> None:
    publish()
    replicas = [start(metrics_listen="127.0.0.1:0") for _ in range(2)]
    given = receipts(replicas[0], 60)
    reports = request(*(fb.Report(receipt=r, right=True) for r in given))
    with futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda stubs: stubs.feedback.Report(reports), replicas))
    assert [a.recorded + a.known for a in answers] == [60, 60]
    assert sum(a.recorded for a in answers) == 60
    assert len(kept(place)) == 60
    pages = [stubs.scrape for stubs in replicas]
    eventually(lambda: sum(page()("mlpserve_reports_total") for page in pages) == 60)
    eventually(lambda: sum(page()("mlpserve_reports_known_total") for page in pages) == 60)


def test_reports_are_counted_by_version_kind_and_answer(
    publish: Publish, start: Callable[..., Stubs]
) -> None:
    version = str(publish())
    stubs = start(metrics_listen="127.0.0.1:0", audit_share=0.5)
    given = receipts(stubs, 100)
    reports = (fb.Report(receipt=r, right=n % 4 > 0) for n, r in enumerate(given))
    assert stubs.feedback.Report(request(*reports)).recorded == 100
    drawn = [bool(receipt[0] & 1) for receipt in given]

    def counted(kind: str, answer: str) -> float:
        return stubs.scrape()("mlpserve_reports_total", version=version, kind=kind, answer=answer)

    for kind in ("audit", "volunteered"):
        for answer in ("right", "wrong"):
            expected = sum(
                (kind == "audit") == audit and (answer == "right") == (n % 4 > 0)
                for n, audit in enumerate(drawn)
            )
            eventually(lambda k, a, e: counted(k, a) == e, kind, answer, expected)


Make = Callable[[bytes], fb.Report]
REFUSED: list[tuple[str, str, Make]] = [
    ("receipt", "a receipt has 49 bytes, got 0", lambda r: fb.Report(right=True)),
    ("receipt", "a receipt has 49 bytes, got 98", lambda r: fb.Report(receipt=r * 2, right=True)),
    (
        "receipt",
        "not a receipt for an answer of mnist",
        lambda r: fb.Report(receipt=bytes([r[0] ^ 1]) + r[1:], right=True),
    ),
    ("", "neither class_name nor right", lambda r: fb.Report(receipt=r)),
    (
        "class_name",
        "unknown class 'hexagon': expected one of circle, square, star",
        lambda r: fb.Report(receipt=r, class_name="hexagon"),
    ),
    ("class_name", "unknown class ''", lambda r: fb.Report(receipt=r, class_name="")),
    (
        "note",
        "a note of 1001 characters, expected at most 1000",
        lambda r: fb.Report(receipt=r, right=True, note="☃" * 1001),
    ),
    (
        "instance",
        "another instance than the receipt's",
        lambda r: fb.Report(receipt=r, right=True, instance=tensor(PIXELS.T.copy())),
    ),
    (
        "instance.shape",
        "shape",
        lambda r: fb.Report(receipt=r, right=True, instance=tensor(PIXELS[:2])),
    ),
    (
        "instance.data",
        "expected raw values from 0 to 16",
        lambda r: fb.Report(receipt=r, right=True, instance=tensor(PIXELS + np.uint8(9))),
    ),
    ("instance.shape", "shape", lambda r: fb.Report(receipt=r, right=True, instance=pb.Tensor())),
]


@pytest.mark.parametrize(("field", "message", "make"), REFUSED)
def test_a_wrong_report_is_refused_by_name_and_nothing_of_its_request_is_kept(
    field: str,
    message: str,
    make: Make,
    publish: Publish,
    start: Callable[..., Stubs],
    refusal: Refuse,
    place: FeedbackPlace,
) -> None:
    publish()
    stubs = start()
    fine, wrong = answered(stubs).receipt, answered(stubs).receipt
    refused = refusal(
        stubs.feedback.Report, request(fb.Report(receipt=fine, right=True), make(wrong))
    )
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == [f"reports[1].{field}".rstrip(".")]
    assert message in refused.message
    assert kept(place) == []


def test_receipts_that_this_store_cannot_vouch_for_are_refused(
    store: Store, publish: Publish, start: Callable[..., Stubs], refusal: Refuse
) -> None:
    version = publish()
    stubs = start()
    keys = ReceiptKeys([KEY])
    weights = weights_of(store.manifest(version).digest)

    def forged(model: str = "mnist", **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "audit": True, "version": version, "answered_at": 1_800_000_000, "label": 0,
            "confidence": 1.0, "row_hash": bytes(8), "weights": weights,
        }  # fmt: skip
        return keys.sign(Receipt(**fields | changes), model)

    for receipt, message in (
        (forged(version=99), "version 99, which the store no longer has"),
        (forged(weights=bytes(4)), "another mnist version 1"),
        (forged(label=3), "another mnist version 1"),
        (forged(model="letters"), "not a receipt for an answer of mnist"),
    ):
        refused = refusal(stubs.feedback.Report, request(fb.Report(receipt=receipt, right=True)))
        assert refused.fields == ["reports[0].receipt"]
        assert message in refused.message


def test_a_receipt_of_an_old_key_is_taken_until_the_key_is_withdrawn(
    publish: Publish, start: Callable[..., Stubs], write_keys: WriteKeys, refusal: Refuse
) -> None:
    publish()
    stubs = start()
    given = receipts(stubs, 2)

    def signs(key: str) -> bool:
        try:
            ReceiptKeys([key]).verify(answered(stubs).receipt, "mnist")
        except ValueError:
            return False
        return True

    write_keys(NEXT, KEY)
    eventually(signs, NEXT)
    stubs.feedback.Report(request(fb.Report(receipt=given[0], right=True)))
    write_keys("m" * 32)
    eventually(signs, "m" * 32)
    refused = refusal(stubs.feedback.Report, request(fb.Report(receipt=given[1], right=True)))
    assert "its key is withdrawn" in refused.message


def test_a_report_on_a_version_that_is_not_in_memory_is_taken(
    publish: Publish, start: Callable[..., Stubs], place: FeedbackPlace
) -> None:
    first = publish()
    stubs = start(standby=0)
    answer = answered(stubs)
    second = publish(seed=1)
    eventually(lambda: answered(stubs).model.version == second)
    stubs.feedback.Report(request(fb.Report(receipt=answer.receipt, right=True)))
    assert [record.version for record in kept(place)] == [first]


@pytest.mark.parametrize("count", [1001, 1_000_000])
def test_more_reports_than_are_taken_are_refused_before_they_are_parsed(
    count: int, publish: Publish, start: Callable[..., Stubs], refusal: Refuse
) -> None:
    publish()
    stubs = start()
    call: Any = stubs.channel.unary_unary("/mlpserve.v1.FeedbackService/Report")
    refused = refusal(call, b"\n\x00" * count)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == ["reports"]
    assert "at most 1000 reports" in refused.message


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\xff\xff\xff\xff\x0f", b"\x0b", b"\xff" * 40])
def test_what_holds_no_report_is_refused(
    data: bytes, publish: Publish, start: Callable[..., Stubs], refusal: Refuse
) -> None:
    publish()
    call: Any = start().channel.unary_unary("/mlpserve.v1.FeedbackService/Report")
    assert refusal(call, data).code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_note_that_is_no_unicode_is_refused(
    publish: Publish, start: Callable[..., Stubs], refusal: Refuse, place: FeedbackPlace
) -> None:
    publish()
    stubs = start()
    report = fb.Report(receipt=answered(stubs).receipt, right=True, note="??").SerializeToString()
    data = report.replace(b"??", b"\xed\xa0"[:2])  # half a surrogate
    call: Any = stubs.channel.unary_unary("/mlpserve.v1.FeedbackService/Report")
    refused = refusal(call, b"\n" + bytes([len(data)]) + data)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert kept(place) == []


def test_a_server_without_a_place_says_that_it_takes_no_reports(
    publish: Publish, start: Callable[..., Stubs], refusal: Refuse
) -> None:
    publish()
    stubs = start(feedback=None)
    report = fb.Report(receipt=answered(stubs).receipt, right=True)
    refused = refusal(stubs.feedback.Report, request(report))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.info.reason == "NO_FEEDBACK"
    assert "--feedback" in refused.message


def test_each_token_has_its_own_rate_and_shows_as_its_fingerprint(
    publish: Publish, start: Callable[..., Stubs], place: FeedbackPlace, tmp_path: Path
) -> None:
    publish()
    tokens = [f"token-of-caller-{n}" for n in range(2)]
    file = tmp_path / "tokens"
    file.write_text("\n".join(tokens))
    file.chmod(0o600)
    stubs = start(token_file=file, feedback_rate=2)
    metadata = [(("authorization", f"Bearer {token}"),) for token in tokens]
    ask = pb.PredictRequest(instance=tensor(PIXELS), receipt=True)
    given = [stubs.prediction.Predict(ask, metadata=metadata[0]).receipt for _ in range(4)]

    def report(receipt: bytes, caller: int) -> None:
        message = request(fb.Report(receipt=receipt, right=True))
        stubs.feedback.Report(message, metadata=metadata[caller], timeout=10)

    report(given[0], 0)
    report(given[1], 0)
    with pytest.raises(grpc.RpcError) as caught:
        report(given[2], 0)
    refused = Refusal(caught.value)
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.info.reason == "QUOTA_EXCEEDED"
    assert 20 < refused.retry.retry_delay.ToTimedelta().total_seconds() <= 30
    report(given[3], 1)
    found = sorted(record.source for record in kept(place))
    prints = [hashlib.sha256(token.encode()).hexdigest()[:16] for token in tokens]
    assert found == sorted([prints[0], prints[0], prints[1]])


def test_a_full_disk_is_said_and_a_retry_finishes_what_it_cut_off(
    publish: Publish,
    start: Callable[..., Stubs],
    place: FeedbackPlace,
    refusal: Refuse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish()
    stubs = start(metrics_listen="127.0.0.1:0")
    reports = request(*(fb.Report(receipt=r, right=True) for r in receipts(stubs, 30)))
    link, links = os.link, []

    def full(*args: Any, **kwargs: Any) -> None:
        links.append(args)
        if len(links) > 11:
            raise OSError(28, "No space left on device")
        link(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        refused = refusal(stubs.feedback.Report, reports)
    assert refused.code == grpc.StatusCode.UNAVAILABLE
    assert "reports cannot be kept" in refused.message
    assert len(kept(place)) == 11
    answer = stubs.feedback.Report(reports)
    assert (answer.recorded, answer.known) == (19, 11)
    assert len(kept(place)) == 30
    eventually(lambda: stubs.scrape()("mlpserve_reports_total") == 30)


def test_a_killed_server_has_kept_each_report_or_has_not(
    publish: Publish, run: Run, write_keys: WriteKeys, place: FeedbackPlace
) -> None:
    publish()
    arguments = ["--receipt-keys", str(write_keys(KEY)), "--feedback", str(place)]
    arguments += ["--feedback-rate", "100000"]
    first = run(*arguments)
    stubs = Stubs(first.event("listening")["address"])
    eventually(stubs.serving)
    reports = request(*(fb.Report(receipt=r, right=True) for r in receipts(stubs, 900)))
    under_way = stubs.feedback.Report.future(reports)
    eventually(lambda: len(place.files.folders("mnist/reports")) > 0)
    first.end(signal.SIGKILL)
    assert under_way.exception() is not None
    stubs.channel.close()
    before = len(kept(place))
    second = run(*arguments)
    stubs = Stubs(second.event("listening")["address"])
    eventually(stubs.serving)
    answer = stubs.feedback.Report(reports)
    assert (answer.recorded, answer.known) == (900 - before, before)
    assert len(kept(place)) == 900
    stubs.channel.close()


def test_nothing_of_a_report_is_logged(
    publish: Publish, start: Callable[..., Stubs], refusal: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    stubs = start(access_log=1)
    with caplog.at_level("DEBUG"):
        receipt = answered(stubs).receipt
        note = "their-secret-note"
        stubs.feedback.Report(request(fb.Report(receipt=receipt, class_name="star", note=note)))
        for wrong in ("their-secret-class", note * 100):
            refusal(stubs.feedback.Report, request(fb.Report(receipt=receipt, class_name=wrong)))
        eventually(lambda: any("Report" in str(vars(r)) for r in caplog.records))
    logged = "\n".join(str(vars(record)) for record in caplog.records)
    for secret in ("their-secret", "star", receipt.hex(), receipt[-16:].hex()):
        assert secret not in logged
