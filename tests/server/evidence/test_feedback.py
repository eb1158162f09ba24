"""Reports: what is kept, and that each is kept once."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve_model import Store
from mlpserve_model.store.evidence.receipts import ReceiptKeys, weights_of
from mlpserve_model.store.evidence.records import FeedbackPlace
from tests.server.evidence.conftest import (
    KEY,
    NAMES,
    NEXT,
    PIXELS,
    SCALED,
    WriteKeys,
    answered,
    kept,
    receipts,
    request,
    tensor,
)
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Refuse, Run, Stubs
from tests.support.waiting import eventually


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


def test_servers_take_each_others_receipts_while_a_new_key_moves_up(
    publish: Publish, start: Callable[..., Stubs], tmp_path: Path
) -> None:
    """As the document says to rotate: first below, in every server, and then to the top."""
    publish()
    servers = []
    for name, keys in (("before", (KEY, NEXT)), ("after", (NEXT, KEY))):
        path = tmp_path / name
        path.write_text("\n".join(keys))
        path.chmod(0o600)
        servers.append(start(receipt_keys=path))
    for one, other in (servers, servers[::-1]):
        report = fb.Report(receipt=answered(one).receipt, right=True)
        assert other.feedback.Report(request(report)).recorded == 1


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


def test_a_place_that_hangs_is_tried_by_one_request_at_a_time_and_said_once(
    publish: Publish,
    start: Callable[..., Stubs],
    refusal: Refuse,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish()
    stubs = start()
    given = receipts(stubs, 3)
    entered, mended, link = threading.Event(), threading.Event(), os.link

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(5, "Input/output error")

    def hang(*args: Any, **kwargs: Any) -> None:
        entered.set()
        assert mended.wait(60)
        link(*args, **kwargs)

    with caplog.at_level("INFO"), monkeypatch.context() as patched:
        patched.setattr(os, "link", fail)
        for _ in range(3):
            refusal(stubs.feedback.Report, request(fb.Report(receipt=given[0], right=True)))
        patched.setattr(os, "link", hang)
        tries = stubs.feedback.Report.future(request(fb.Report(receipt=given[1], right=True)))
        assert entered.wait(20)
        refused = refusal(stubs.feedback.Report, request(fb.Report(receipt=given[2], right=True)))
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        assert not tries.done()
        mended.set()
        assert tries.result(timeout=20).recorded == 1
        assert stubs.feedback.Report(request(fb.Report(receipt=given[2], right=True))).recorded == 1
    said = [r.getMessage() for r in caplog.records if "report" in r.getMessage()]
    assert said == ["cannot keep reports", "reports can be kept again"]


def test_forged_receipts_take_from_the_quota(
    publish: Publish, start: Callable[..., Stubs], refusal: Refuse
) -> None:
    publish()
    stubs = start(feedback_rate=2)
    forged = request(fb.Report(receipt=bytes(49), right=True))
    codes = [refusal(stubs.feedback.Report, forged).code for _ in range(3)]
    assert codes == [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ]


@ANY_TRANSPORT  # both take reports alike
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
