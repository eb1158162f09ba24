"""The review of corrections on the page: who may, what is shown, what is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from mlpserve_client.testing import ModelServer
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED, Reviews
from mlpserve_web.cli import main
from tests.support.corrections import correction, image
from tests.web.conftest import OpenPage, StartWeb, Web, load, needs_chromium

TOKEN = "a-reviewer-with-a-long-token"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


def tokens_in(folder: Path) -> Path:
    file = folder / "reviewers"
    file.touch(mode=0o600)
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tokens_in(tmp_path)


@pytest.fixture
def start_review(
    server: ModelServer, start_web: StartWeb, place: FeedbackPlace, tokens: Path
) -> Callable[[], Web]:
    """Start a gateway where corrections can be reviewed."""

    def start_review() -> Web:
        where = ("--target", server.target, "--store", str(server.store))
        return start_web(*where, "--review", str(place), "--review-tokens", str(tokens))

    return start_review


class Waiting(NamedTuple):
    """A gateway with two reports, one of them an audit's, for tests that change nothing."""

    web: Web
    place: FeedbackPlace
    folder: Path


@pytest.fixture(scope="module")
def waiting(
    server: ModelServer, start_web: StartWeb, tmp_path_factory: pytest.TempPathFactory
) -> Waiting:
    folder = tmp_path_factory.mktemp("waiting")
    place, tokens = FeedbackPlace(folder / "feedback"), tokens_in(folder)
    place.record(report())
    place.record(report(4, audit=True))
    where = ("--target", server.target, "--store", str(server.store))
    web = start_web(*where, "--review", str(place), "--review-tokens", str(tokens))
    return Waiting(web, place, folder)


def listed(web: Web, token: str = TOKEN) -> Any:
    return web.call("/api/corrections", Authorization=f"Bearer {token}")


def review(web: Web, tag: str, body: object, token: str = TOKEN, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.call(f"/api/corrections/{tag}", data, Authorization=f"Bearer {token}", **headers)


def report(number: int = 1, truth: str = "star", source: str = "aa", **more: Any) -> ReportRecord:
    return correction(image(number)[:3], truth, source, **more)


def test_without_a_place_there_is_nothing_to_review(web: Web) -> None:
    assert "--review" in listed(web).json["error"]
    assert listed(web).status == review(web, "0" * 32, {"verdict": ACCEPTED}).status == 404
    assert web.call("/review").status == 200


def test_a_reviewer_sees_what_waits_and_decides(
    start_review: Callable[[], Web], place: FeedbackPlace
) -> None:
    first, second, third = report(1), report(2, "square"), report(1, "circle", "bb")
    for one in (first, second, third, report(3, audit=True)):
        place.record(one)
    web = start_review()
    answer = listed(web)
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json["model"], answer.json["waiting"]) == ("mnist", 3)
    shown = {one["tag"]: one for one in answer.json["corrections"]}
    one = shown[first.tag]
    assert (one["answer"], one["truth"], one["source"]) == ("circle", "star", "aa")
    assert one["claims"] == {"star": 1, "circle": 1}
    assert one["instance"]["shape"] == [3, 4]
    np.testing.assert_allclose(one["instance"]["values"], image(1)[:3].ravel(), rtol=1e-6)

    assert review(web, first.tag, {"verdict": ACCEPTED, "reason": "clearly"}).status == 200
    assert review(web, second.tag, {"verdict": REJECTED}).status == 200
    kept = Reviews(place, "mnist").all()
    assert (kept[first.tag].verdict, kept[first.tag].reason) == (ACCEPTED, "clearly")
    assert kept[second.tag].verdict == REJECTED
    assert kept[first.tag].by.startswith("token ")
    assert TOKEN not in str(kept)
    assert [one["tag"] for one in listed(web).json["corrections"]] == [third.tag]
    again = review(web, first.tag, {"verdict": REJECTED})
    assert (again.status, again.json["error"]) == (
        409, "this correction does not wait any more: accepted",
    )  # fmt: skip


@pytest.mark.parametrize("token", ["", "a-caller-with-a-long-token", TOKEN[:-1], TOKEN + "x"])
def test_nobody_else_sees_or_decides_anything(waiting: Waiting, token: str) -> None:
    web = waiting.web
    assert listed(web, token).status == 401
    assert review(web, report().tag, {"verdict": ACCEPTED}, token).status == 401
    assert web.call("/api/corrections").status == 401
    assert Reviews(waiting.place, "mnist").all() == {}


def test_a_page_of_another_site_decides_nothing(waiting: Waiting) -> None:
    web = waiting.web
    foreign = review(web, report().tag, {"verdict": ACCEPTED}, Origin="https://evil.example")
    assert foreign.status == 403
    # A form can send neither a header of its own nor JSON's type; nothing else carries the token.
    form = web.call(
        f"/api/corrections/{report().tag}", b"verdict=accepted", Cookie=f"token={TOKEN}"
    )
    assert form.status == 401
    assert Reviews(waiting.place, "mnist").all() == {}


def test_reviewers_who_are_taken_out_of_the_file_are_refused_at_once(
    start_review: Callable[[], Web], tokens: Path
) -> None:
    web = start_review()
    assert listed(web).status == 200
    tokens.write_text("another-reviewer-with-a-token\n")
    assert listed(web).status == 401
    assert listed(web, "another-reviewer-with-a-token").status == 200
    tokens.write_text("")
    unusable = listed(web)
    assert (unusable.status, str(tokens) in unusable.json["error"]) == (503, False)


@pytest.mark.parametrize(
    ("tag", "body", "status"),
    [
        ("0" * 32, {"verdict": ACCEPTED}, 404),
        ("..%2f..%2f..%2fescaped", {"verdict": ACCEPTED}, 404),
        ("../../../escaped", {"verdict": ACCEPTED}, 404),
        (report().tag, {"verdict": "agreed"}, 400),
        (report().tag, {"verdict": ["accepted"]}, 400),
        (report().tag, {"verdict": ACCEPTED, "reason": 5}, 400),
        (report().tag, {"verdict": ACCEPTED, "reason": "x" * 1001}, 400),
        (report().tag, ["accepted"], 400),
        (report().tag, b"{", 400),
        (report().tag, b"", 400),
        (report(4, audit=True).tag, {"verdict": ACCEPTED}, 404),
    ],
)
def test_what_is_no_verdict_changes_nothing(
    waiting: Waiting, tag: str, body: object, status: int
) -> None:
    assert review(waiting.web, tag, body).status == status
    assert Reviews(waiting.place, "mnist").all() == {}
    assert not list(waiting.folder.rglob("*escaped*"))


def test_a_hostile_report_stays_text_and_takes_no_memory(
    start_review: Callable[[], Web], place: FeedbackPlace, tmp_path: Path
) -> None:
    huge = correction(np.full(2**18, 0.123456, np.float32), HOSTILE, note=HOSTILE)
    place.record(huge)
    odd = report(2, note="x")
    place.record(odd)
    (file,) = tmp_path.rglob(f"{odd.tag}.json")
    file.write_bytes(file.read_bytes().replace(b'"note": "x"', b'"note": "\\ud800"'))
    answer = listed(start_review())
    assert answer.status == 200
    assert len(answer.body) < 2**20
    assert answer.json["waiting"] == 1  # the other file is no report


def test_unusable_settings_end_the_start(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--review", "somewhere"])
    assert "--review and --review-tokens go together" in capsys.readouterr().err
    tokens.chmod(0o644)
    assert main(["--review", "somewhere", "--review-tokens", str(tokens)]) == 1
    assert "is open to every user of this machine" in capsys.readouterr().err


def at_the_desk(page: Page) -> None:
    page.get_by_role("link", name="Review corrections").click()
    page.get_by_label("reviewer's token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()


@needs_chromium
def test_a_person_reviews_on_the_page(
    start_review: Callable[[], Web], open_page: OpenPage, place: FeedbackPlace, tmp_path: Path
) -> None:
    good, bad = report(1, "star", note=HOSTILE), report(2, HOSTILE, "bb")
    bad = replace(bad, reported_at=bad.reported_at + 1)
    for one in (good, bad):
        place.record(one)
    page = open_page(start_review())
    at_the_desk(page)
    expect(page.locator("#count")).to_have_text("Waiting corrections of mnist: 2")
    cards = page.locator("#corrections li")
    expect(cards.first).to_contain_text("star, not circle?")
    expect(cards.first).to_contain_text(HOSTILE)
    assert page.locator("#corrections img").count() == 0
    assert Axe().run(page).response["violations"] == []
    page.screenshot(path=tmp_path / "review.png")

    cards.first.get_by_role("button", name="Accept").click()
    expect(page.locator("#count")).to_have_text("Waiting corrections of mnist: 1")
    # Another reviewer was faster.
    Reviews(place, "mnist").add(bad.tag, REJECTED)
    page.get_by_role("button", name="Accept").click()
    expect(cards.first).to_contain_text("does not wait any more: rejected")
    page.reload()
    expect(page.get_by_text("Nothing waits for a review.")).to_be_visible()
    expect(page.locator("#empty")).to_contain_text("client.report(")
    assert {tag: one.verdict for tag, one in Reviews(place, "mnist").all().items()} == {
        good.tag: ACCEPTED, bad.tag: REJECTED,
    }  # fmt: skip
    assert Axe().run(page).response["violations"] == []


@needs_chromium
def test_a_page_without_a_place_says_what_to_do(web: Web, open_page: OpenPage) -> None:
    page = open_page(web)
    expect(page.locator("#served")).to_contain_text("version 1")
    expect(page.locator("#review")).to_be_hidden()
    load(page, web.address + "/review")
    expect(page.locator("#problem")).to_contain_text("no --review was given")
