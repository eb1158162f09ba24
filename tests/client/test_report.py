"""Receipts and reports, with real servers of ours and with one older than them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mlpserve.v1 import feedback_pb2
from mlpserve_client import (
    BatchPrediction,
    Client,
    InvalidInputError,
    NotOfferedError,
    OverloadedError,
    Prediction,
    Report,
    ReportResult,
    ServerError,
    _answers,
)
from mlpserve_client.testing import ModelServer
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from tests.support.client import Connect, Pixels, StartScripted, StartServer

KEY = "k" * 32


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


@pytest.fixture
def asking(
    connect: Connect, start: StartServer, server: ModelServer, tmp_path: Path
) -> Callable[..., Client]:
    """Connect to a server that gives receipts and takes reports."""
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)

    def asking(feedback_rate: float = 600) -> Client:
        running = start(
            store=server.store,
            receipt_keys=keys,
            audit_share=0.5,
            feedback=tmp_path / "feedback",
            feedback_rate=feedback_rate,
        )
        client = connect(running.address)
        client.wait_until_ready()
        return client

    return asking


@pytest.fixture
def client(asking: Callable[..., Client]) -> Client:
    """A client of such a server."""
    return asking()


def kept(place: FeedbackPlace) -> list[ReportRecord]:
    return list(place.reports("mnist"))


def test_a_prediction_brings_a_receipt_when_it_is_asked_to(client: Client, pixels: Pixels) -> None:
    assert client.predict(pixels[0]).receipt == b""
    prediction = client.predict(pixels[0], receipt=True)
    signed = ReceiptKeys([KEY]).verify(prediction.receipt, "mnist")
    assert signed.label == prediction.label
    assert signed.audit == prediction.audit


def test_every_row_of_a_batch_brings_its_receipt_in_many_requests_too(
    client: Client, pixels: Pixels
) -> None:
    rows = np.tile(pixels[:4], (500, 1, 1))  # more than fit into one request
    batch = client.predict_batch(rows, receipts=True)
    keys = ReceiptKeys([KEY])
    assert [keys.verify(r, "mnist").label for r in batch.receipts] == batch.labels.tolist()
    assert batch[3].receipt == batch.receipts[3]
    assert batch[5:8].receipts == batch.receipts[5:8]
    assert 0.3 < sum(prediction.audit for prediction in batch) / len(rows) < 0.7
    assert client.predict_batch(rows[:2]).receipts == ()
    assert client.predict_batch(rows[:0], receipts=True).receipts == ()


def test_a_report_is_recorded_once(client: Client, pixels: Pixels, place: FeedbackPlace) -> None:
    prediction = client.predict(pixels[0], receipt=True)
    truth = prediction.class_names[prediction.label - 1]
    said: dict[str, Any] = {"class_name": truth, "instance": pixels[0], "note": "on paper"}
    assert client.report(prediction.receipt, **said) == ReportResult(recorded=1, known=0)
    assert client.report(prediction.receipt.hex(), **said) == ReportResult(recorded=0, known=1)
    (record,) = kept(place)
    assert (record.truth, record.right, record.note) == (truth, False, "on paper")
    assert record.instance is not None
    np.testing.assert_allclose(record.instance, pixels[0] / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "int64", "float64", "bool", "list", "image", "file"])
def test_whatever_predict_takes_can_be_reported(
    kind: str, client: Client, pixels: Pixels, place: FeedbackPlace, tmp_path: Path
) -> None:
    x = pixels[0]
    PIL.Image.fromarray(x).save(tmp_path / "digit.png")
    instance: Any = {
        "uint8": x,
        "int64": x.astype(np.int64),
        "float64": x / 255,
        "bool": x > 128,
        "list": x.tolist(),
        "image": PIL.Image.fromarray(x),
        "file": tmp_path / "digit.png",
    }[kind]
    receipt = client.predict(instance, receipt=True).receipt
    assert client.report(receipt, right=True, instance=instance).recorded == 1
    assert kept(place)[0].instance is not None


def test_many_reports_go_at_once(client: Client, pixels: Pixels, place: FeedbackPlace) -> None:
    batch = client.predict_batch(np.tile(pixels[:3], (400, 1, 1)), receipts=True)
    reports = [Report(receipt, right=True) for receipt in batch.receipts[:550]]
    assert client.report_batch(reports) == ReportResult(recorded=550, known=0)
    assert len(kept(place)) == 550
    assert client.report_batch([]) == ReportResult(recorded=0, known=0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "class_name or right"),
        ({"class_name": "7", "right": False}, "class_name or right"),
        ({"class_name": 7}, "invalid class_name 7: expected text"),
        ({"class_name": "\ud800"}, "a lone surrogate cannot be sent"),
        ({"right": True, "note": 3}, "invalid note 3"),
        ({"right": True, "receipt": "xyz"}, "invalid receipt: expected bytes, or hex"),
        ({"right": True, "receipt": b""}, "receipt=True"),
        ({"right": True, "receipt": None}, "receipt=True"),
        ({"class_name": "hexagon"}, "unknown class 'hexagon': expected one of 0, 1"),
        ({"right": True, "instance": [[0.5] * 28] * 28}, "another instance than the receipt's"),
        ({"right": True, "receipt": b"r" * 49}, "not a receipt for an answer of mnist"),
    ],
)
def test_a_wrong_report_is_refused_with_what_is_wrong(
    said: dict[str, Any],
    expected: str,
    client: Client,
    pixels: Pixels,
    place: FeedbackPlace,
) -> None:
    receipt = client.predict(pixels[0], receipt=True).receipt
    with pytest.raises(InvalidInputError, match=expected):
        client.report(**({"receipt": receipt} | said))
    assert kept(place) == []


def test_a_server_that_is_not_set_up_for_receipts_or_reports_says_so(
    connect: Connect, start: StartServer, server: ModelServer, pixels: Pixels
) -> None:
    client = connect(start(store=server.store).address)
    client.wait_until_ready()
    with pytest.raises(NotOfferedError, match="without --receipt-keys"):
        client.predict(pixels[0], receipt=True)
    with pytest.raises(NotOfferedError, match="without --receipt-keys"):
        client.predict_batch(pixels[:2], receipts=True)
    with pytest.raises(NotOfferedError, match="without --feedback"):
        client.report(b"r" * 49, right=True)
    assert client.predict(pixels[0]).label >= 0


def test_an_older_server_is_told_from_one_that_fails(
    connect: Connect, scripted: StartScripted
) -> None:
    old = connect(scripted().target)
    with pytest.raises(NotOfferedError, match="gives no receipts: it is older"):
        old.predict([0.0, 0.5], receipt=True)
    with pytest.raises(NotOfferedError, match="does not offer this call"):
        old.report(b"r" * 49, right=True)


def test_a_caller_beyond_its_rate_is_told_when_to_come_back(
    asking: Callable[..., Client], pixels: Pixels
) -> None:
    client = asking(feedback_rate=1)
    first, second = client.predict_batch(pixels[:2], receipts=True).receipts
    assert client.report(first, right=True).recorded == 1
    with pytest.raises(OverloadedError, match="too many reports") as caught:
        client.report(second, right=True)
    assert caught.value.retry_after is not None
    assert 30 < caught.value.retry_after <= 60


def test_predictions_with_receipts_are_values() -> None:
    made = {
        "labels": np.array([1], np.int32),
        "probabilities": np.array([[0.25, 0.75]], np.float32),
        "model": None,
        "class_names": ("a", "b"),
    }
    batch = BatchPrediction(**made, receipts=(b"\x01receipt",))  # type: ignore[arg-type]
    (prediction,) = batch
    assert isinstance(prediction, Prediction)
    assert prediction.audit
    assert not Prediction(1, "b", 0.75, batch.probabilities[0], batch.model, ("a", "b")).audit


def test_receipts_that_do_not_fit_an_answer_are_refused() -> None:
    assert _answers.receipts([], 0) == ()
    assert _answers.receipts([b"a", b"b"], 2) == (b"a", b"b")
    with pytest.raises(NotOfferedError):
        _answers.receipts([], 2)
    for found, count in (([b"a"], 2), ([b"a"], 0), ([b"a" * 2000], 1)):
        with pytest.raises(ServerError, match="receipt"):
            _answers.receipts(found, count)


def test_counts_that_do_not_fit_a_report_are_refused() -> None:
    for recorded, known in ((2, 1), (0, 0), (-1, 3)):
        response = feedback_pb2.ReportResponse(recorded=recorded, known=known)
        with pytest.raises(ServerError, match="2 reports"):
            _answers.report_result(response, 2)
