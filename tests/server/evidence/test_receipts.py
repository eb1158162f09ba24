"""Receipts of answers: what they say, when there are any, and who can sign them."""

import random
import time
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store, scale_pixels
from mlpserve_model.store.evidence.receipts import ReceiptKeys, weights_of
from mlpserve_server.evidence.receipts import ReceiptIssuer
from mlpserve_server.observability.observer import Observer
from tests.server.evidence.conftest import KEY, NEXT, WriteKeys
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def single(receipt: bool = True) -> pb.PredictRequest:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3, 4], data=PIXELS.tobytes())
    return pb.PredictRequest(instance=tensor, receipt=receipt)


def batch(rows: int, receipts: bool = True) -> pb.BatchPredictRequest:
    x = np.linspace(0, 1, rows * 12, dtype=np.float32)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[rows, 12], data=x.tobytes())
    return pb.BatchPredictRequest(instances=tensor, receipts=receipts)


def started(serve: Serve, **settings: Any) -> Stubs:
    stubs = serve(**settings)
    eventually(stubs.serving)
    return stubs


def test_a_receipt_says_what_was_answered(
    store: Store, publish: Publish, serve: Serve, write_keys: WriteKeys
) -> None:
    version = publish()
    stubs = started(serve, receipt_keys=write_keys(KEY), audit_share=0)
    before = int(time.time())
    answer = stubs.prediction.Predict(single())
    keys = ReceiptKeys([KEY])
    receipt = keys.verify(answer.receipt, "mnist")
    assert (receipt.version, receipt.label, receipt.audit) == (version, answer.label, False)
    assert receipt.confidence == pytest.approx(max(answer.probabilities), abs=1e-5)
    assert before <= receipt.answered_at <= time.time()
    assert receipt.weights == weights_of(store.manifest(version).digest)
    assert keys.matches(receipt.row_hash, scale_pixels(PIXELS, 16).ravel(), real=False)


def test_each_row_of_a_batch_has_its_own_receipt(
    publish: Publish, serve: Serve, write_keys: WriteKeys
) -> None:
    publish()
    stubs = started(serve, receipt_keys=write_keys(KEY), audit_share=1)
    request = batch(1200)  # more than are signed in one step
    answer = stubs.prediction.BatchPredict(request)
    keys = ReceiptKeys([KEY])
    receipts = [keys.verify(receipt, "mnist") for receipt in answer.receipts]
    rows = np.frombuffer(request.instances.data, np.float32).reshape(-1, 12)
    assert [r.label for r in receipts] == list(answer.labels)
    assert all(r.audit for r in receipts)
    assert all(keys.matches(r.row_hash, x, real=False) for r, x in zip(receipts, rows, strict=True))


def test_nobody_gets_a_receipt_without_asking(
    publish: Publish, serve: Serve, write_keys: WriteKeys
) -> None:
    publish()
    stubs = started(serve, receipt_keys=write_keys(KEY))
    assert not stubs.prediction.Predict(single(receipt=False)).receipt
    assert not stubs.prediction.BatchPredict(batch(3, receipts=False)).receipts


def test_calls_that_are_answered_together_get_what_each_has_asked_for(
    publish: Publish, serve: Serve, write_keys: WriteKeys
) -> None:
    publish()
    stubs = started(serve, receipt_keys=write_keys(KEY))
    asks = [n % 3 == 0 for n in range(300)]
    with futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(stubs.prediction.Predict, map(single, asks)))
    assert [bool(answer.receipt) for answer in answers] == asks
    given = [answer.receipt for answer in answers if answer.receipt]
    assert len(set(given)) == len(given), "equal rows of one second share a receipt"


def test_a_server_without_keys_says_that_it_gives_no_receipts(
    publish: Publish, serve: Serve, refusal: Refuse
) -> None:
    publish()
    stubs = started(serve)
    for call, request in (
        (stubs.prediction.Predict, single()),
        (stubs.prediction.BatchPredict, batch(2)),
    ):
        refused = refusal(call, request)
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
        assert "--receipt-keys" in refused.message
        assert refused.info.reason == "NO_RECEIPTS"


def test_a_new_first_key_signs_soon(publish: Publish, serve: Serve, write_keys: WriteKeys) -> None:
    publish()
    stubs = started(serve, receipt_keys=write_keys(KEY))
    ReceiptKeys([KEY]).verify(stubs.prediction.Predict(single()).receipt, "mnist")
    write_keys(NEXT, KEY)

    def signed_by_next() -> bool:
        receipt = stubs.prediction.Predict(single()).receipt
        return bool(receipt) and _verifies(ReceiptKeys([NEXT]), receipt)

    eventually(signed_by_next)


def test_receipts_are_counted_by_version_and_kind(
    publish: Publish, serve: Serve, write_keys: WriteKeys
) -> None:
    version = str(publish())
    stubs = started(
        serve, receipt_keys=write_keys(KEY), audit_share=0.5, metrics_listen="127.0.0.1:0"
    )
    answer = stubs.prediction.BatchPredict(batch(1000))
    drawn = sum(receipt[0] & 1 for receipt in answer.receipts)
    assert 400 < drawn < 600  # six standard deviations

    def counted() -> bool:
        page = stubs.scrape()
        by_kind = [
            page("mlpserve_receipts_total", version=version, kind=k) for k in ("audit", "plain")
        ]
        return by_kind == [drawn, 1000 - drawn]

    eventually(counted)


def _verifies(keys: ReceiptKeys, receipt: bytes) -> bool:
    try:
        return keys.verify(receipt, "mnist").version > 0
    except ValueError:
        return False


@pytest.mark.parametrize("row", [[-3.5, 7.25], [np.inf, 0.0], [np.nan, 1.0], [-1.0, -2.0]])
def test_answers_that_are_no_probabilities_have_receipts_too(
    row: list[float], store: Store, publish: Publish
) -> None:
    manifest, keys = store.manifest(publish()), ReceiptKeys([KEY])
    issuer = ReceiptIssuer(lambda: keys, 0.0, Observer())
    for count in (1, 3):
        answers = np.array([row] * count, np.float32)
        for field in issuer.append([b""] * count, manifest, answers, [b"row"] * count):
            receipt = keys.verify(pb.PredictResponse.FromString(field).receipt, "mnist")
            assert receipt.label == answers[0].argmax()
            assert 0 <= receipt.confidence <= 1


def test_what_is_drawn_for_the_audit_cannot_be_computed(publish: Publish, store: Store) -> None:
    """Callers see what was drawn: by Python's generator they could tell what is drawn next."""
    manifest = store.manifest(publish())
    keys = ReceiptKeys([KEY])
    issuer = ReceiptIssuer(lambda: keys, 0.5, Observer())
    answers = np.full((100, 3), 1 / 3, np.float32)

    def drawn() -> list[bool]:
        random.seed(0)
        np.random.seed(0)
        fields = issuer.append([b""] * 100, manifest, answers, [b"row"] * 100)
        given = [pb.PredictResponse.FromString(field).receipt for field in fields]
        return [keys.verify(receipt, "mnist").audit for receipt in given]

    assert drawn() != drawn()
