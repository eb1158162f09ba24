"""Reports in a bucket: each is there once, or refused with a code, whatever the bucket does."""

from collections.abc import Callable

import grpc
import pytest

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve_model.store.evidence.records import FeedbackPlace
from tests.server.evidence.conftest import PIXELS, answered, kept, receipts, request, tensor
from tests.support.object_store import Proxy
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Refuse, Stubs
from tests.support.waiting import eventually

pytestmark = ANY_TRANSPORT  # both take reports alike
REPORTS = 30


def reports_on(stubs: Stubs) -> fb.ReportRequest:
    return request(*(fb.Report(receipt=r, right=True) for r in receipts(stubs, REPORTS)))


@pytest.fixture
def place(address: str) -> FeedbackPlace:
    return FeedbackPlace(address)


def test_reports_arrive_once_however_often_they_are_sent(
    publish: Publish, start: Callable[..., Stubs], address: str, place: FeedbackPlace
) -> None:
    publish()
    stubs = start(feedback=address)
    receipt = answered(stubs).receipt
    report = request(fb.Report(receipt=receipt, class_name="star", instance=tensor(PIXELS)))
    assert stubs.feedback.Report(report) == fb.ReportResponse(recorded=1)
    assert stubs.feedback.Report(report) == fb.ReportResponse(known=1)
    (record,) = kept(place)
    assert (record.receipt, record.truth) == (receipt.hex(), "star")
    assert record.instance is not None


def test_what_two_replicas_are_told_at_once_is_kept_once(
    publish: Publish, start: Callable[..., Stubs], address: str, place: FeedbackPlace
) -> None:
    publish()
    replicas = [start(feedback=address) for _ in range(2)]
    reports = reports_on(replicas[0])
    under_way = [stubs.feedback.Report.future(reports, timeout=60) for stubs in replicas]
    answers = [call.result() for call in under_way]
    assert sum(answer.recorded for answer in answers) == REPORTS
    assert sum(answer.known for answer in answers) == REPORTS
    assert len(kept(place)) == REPORTS


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_while_the_bucket_is_away_reports_are_refused_and_a_retry_loses_none(
    fault: str,
    publish: Publish,
    start: Callable[..., Stubs],
    refusal: Refuse,
    proxy: Proxy,
    address: str,
    place: FeedbackPlace,
) -> None:
    publish()
    stubs = start(feedback=address, metrics_listen="127.0.0.1:0")
    reports = reports_on(stubs)
    writes: list[str] = []

    def away(asked: str) -> str | None:
        writes.append(asked)
        return fault if len(writes) > 11 else None

    proxy.fault = away
    refused = refusal(stubs.feedback.Report, reports)
    proxy.fault = lambda _: None
    assert refused.code == grpc.StatusCode.UNAVAILABLE
    assert "reports cannot be kept" in refused.message
    before = len(kept(place))
    assert 0 < before < REPORTS
    answer = stubs.feedback.Report(reports)
    assert (answer.recorded, answer.known) == (REPORTS - before, before)
    assert len(kept(place)) == REPORTS
    eventually(lambda: stubs.scrape()("mlpserve_reports_total") == REPORTS)


def test_a_report_whose_write_was_not_confirmed_is_looked_up(
    publish: Publish,
    start: Callable[..., Stubs],
    proxy: Proxy,
    address: str,
    place: FeedbackPlace,
) -> None:
    publish()
    stubs = start(feedback=address)
    reports = reports_on(stubs)
    proxy.fault = lambda asked: "lost answer" if asked.startswith("PUT") else None
    assert stubs.feedback.Report(reports) == fb.ReportResponse(recorded=REPORTS)
    assert len(kept(place)) == REPORTS
