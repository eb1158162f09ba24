"""Reports that are refused, and with which words; nothing of them is kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from mlpserve_model.store.evidence.receipts import Receipt, ReceiptKeys, weights_of
from mlpserve_model.store.evidence.records import FeedbackPlace
from tests.server.evidence.conftest import (
    KEY,
    PIXELS,
    answered,
    kept,
    request,
    tensor,
)
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Refusal, Refuse, Stubs

pytestmark = ANY_TRANSPORT  # both take reports alike
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


@pytest.mark.parametrize(
    ("count", "field", "message"),
    [
        (1001, "reports", "1001 reports, expected 1 to 1000: send several requests"),
        (1_000_000, "", "with more than 65,536 bytes beside its texts and values"),
    ],
)
def test_more_reports_than_are_taken_are_refused_before_any_is_verified(
    count: int,
    field: str,
    message: str,
    publish: Publish,
    start: Callable[..., Stubs],
    refusal: Refuse,
) -> None:
    publish()
    stubs = start()
    call: Any = stubs.channel.unary_unary("/mlpserve.v1.FeedbackService/Report")
    refused = refusal(call, b"\n\x00" * count)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == [field]
    assert message in refused.message


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
