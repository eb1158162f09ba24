"""What people say on the page: reports of theirs, and what the page shows of all reports."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import expect
from prometheus_client.samples import Sample

from mlpserve_client.testing import ModelServer
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.evidence.statistics import confidence_sequence
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from mlpserve_web.traffic import summary
from tests.web.conftest import OpenPage, StartWeb, Web, needs_chromium

X = np.linspace(0, 1, 12, dtype=np.float32)
BODY = json.dumps(X.tolist()).encode()


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


@pytest.fixture
def asking(
    server: ModelServer, start_web: StartWeb, place: FeedbackPlace, tmp_path: Path
) -> Iterator[Callable[..., Web]]:
    """Start a gateway to a server that takes reports."""
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    keys.chmod(0o600)
    with ExitStack() as stack:

        def asking(audit_share: float = 0.3) -> Web:
            settings = Settings(
                store=server.store,
                listen=("127.0.0.1:0",),
                receipt_keys=keys,
                audit_share=audit_share,
                feedback=Path(str(place)),
                drain_seconds=0,
            )
            running = stack.enter_context(Server(settings))
            return start_web("--target", running.address, "--feedback")

        yield asking


def say(web: Web, query: str) -> Any:
    return web.call(f"/api/feedback?{query}", BODY, Content_Type="application/json")


def kept(place: FeedbackPlace) -> list[ReportRecord]:
    return list(place.reports("mnist"))


def test_the_page_asks_only_if_it_is_told_to(
    web: Web, asking: Callable[..., Web], server: ModelServer, start_web: StartWeb
) -> None:
    assert web.call("/api/models").json["feedback"] is False
    assert asking().call("/api/models").json["feedback"] is True
    assert say(web, "said=right").status == 404
    settings = Settings(store=server.store, listen=("127.0.0.1:0",), drain_seconds=0)
    with Server(settings) as plain:
        refused = say(start_web("--target", plain.address, "--feedback"), "said=right")
    assert refused.status == 501
    assert "without --receipt-keys" in refused.json["error"]


def test_what_is_said_becomes_a_volunteered_report_with_the_input(
    asking: Callable[..., Web], place: FeedbackPlace
) -> None:
    web = asking()
    for query in ("said=right&version=1", "class=star", "said=wrong"):
        answer = say(web, query)
        assert (answer.status, answer.json) == (200, {"recorded": True})
    records = kept(place)
    assert sorted((r.truth or "", r.audit) for r in records) == [
        ("", False),
        ("", False),
        ("star", False),
    ]
    for record in records:
        assert record.instance is not None
        np.testing.assert_allclose(record.instance.ravel(), X, rtol=1e-6)


def test_where_every_answer_is_audited_so_is_this_one(
    asking: Callable[..., Web], place: FeedbackPlace
) -> None:
    assert say(asking(audit_share=1), "said=right").status == 200
    assert [record.audit for record in kept(place)] == [True]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "expected class=NAME, or said=right"),
        ("said=perhaps", "expected class=NAME, or said=right"),
        ("said=right&class=star", "expected class=NAME, or said=right"),
        ("class=hexagon", "unknown class 'hexagon'"),
        ("said=right&version=x", "version 'x', expected a number"),
    ],
)
def test_what_says_nothing_is_refused(
    query: str, expected: str, asking: Callable[..., Web], place: FeedbackPlace
) -> None:
    answer = say(asking(), query)
    assert answer.status == 400
    assert expected in answer.json["error"]
    assert kept(place) == []


def test_live_accuracy_and_drift_are_summed_over_servers() -> None:
    def reports(answer: str, kind: str, value: float, model: str = "mnist") -> Sample:
        labels = {"model": model, "version": "7", "kind": kind, "answer": answer}
        return Sample("mlpserve_reports_total", labels, value)

    def drift(signal: str, value: float) -> Sample:
        labels = {"model": "mnist", "version": "7", "signal": signal}
        return Sample("mlpserve_drift_p_value", labels, value)

    found = summary(
        [
            reports("right", "audit", 50),
            reports("right", "audit", 46),
            reports("wrong", "audit", 4),
            reports("wrong", "volunteered", 900),
            reports("wrong", "audit", 1, model="letters"),
            drift("energy", 0.5),
            drift("energy", 1e-9),
            drift("predicted", 1e-3),
        ]
    )
    low, high = confidence_sequence(96, 100)
    version = {"model": "mnist", "version": "7"}
    digits, letters = found["audits"]
    assert digits == version | {"right": 96, "rows": 100, "low": low, "high": high}
    assert (letters["model"], letters["rows"]) == ("letters", 1)
    assert found["drifts"] == [version | {"signals": ["energy"]}]


@needs_chromium
def test_a_person_says_on_the_page_what_it_was(
    asking: Callable[..., Web], open_page: OpenPage, place: FeedbackPlace, tmp_path: Path
) -> None:
    page = open_page(asking())
    one, other = _picture(tmp_path / "one.png", 0), _picture(tmp_path / "other.png", 3)
    expect(page.locator("#feedback")).to_be_hidden()
    page.locator("#file").set_input_files(one)
    name = page.locator("#answer .name").inner_text()
    truth = "star" if name != "star" else "circle"
    page.get_by_label("it was").select_option(truth)
    page.get_by_role("button", name="Wrong").click()
    expect(page.locator("#feedback-status")).to_have_text("Thank you.")
    expect(page.get_by_role("button", name="Right")).to_be_disabled()
    assert [(r.truth, r.right) for r in kept(place)] == [(truth, False)]
    page.locator("#file").set_input_files(other)
    expect(page.locator("#feedback-status")).to_have_text("")
    page.get_by_role("button", name="Right").click()
    expect(page.locator("#feedback-status")).to_have_text("Thank you.")
    assert sorted(r.right for r in kept(place)) == [False, True]


def _picture(file: Path, column: int) -> Path:
    pixels = np.zeros((30, 40), np.uint8)
    pixels[5:25, 10 * column : 10 * column + 10] = 255
    PIL.Image.fromarray(pixels).save(file)
    return file
