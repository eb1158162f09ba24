"""From reports to corrections in their states; what speaks for a source, and what against it."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mlpserve_model.store.evidence.corrections import (
    OVER_QUOTA,
    PENDING,
    REVOKED,
    SUSPECT,
    Correction,
    accept_agreed,
    claim_of,
    hold_back,
    reviewed,
)
from mlpserve_model.store.evidence.inbox import Inbox, Reviewing, with_instances
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.evidence.reviews import ACCEPTED, AGREED, REJECTED, Review, Reviews
from mlpserve_model.store.evidence.sources import proven, suspects
from tests.support.corrections import NOW, correction, image
from tests.support.reports import KEYS, League

NOBODY: frozenset[str] = frozenset()


def claims(reports: Iterable[ReportRecord]) -> list[Correction]:
    return [claim for report in reports if (claim := claim_of(report))]


def in_state(state: str, reports: Iterable[ReportRecord]) -> list[Correction]:
    return [replace(claim, state=state) for claim in claims(reports)]


def of(number: int, truth: str, *sources: str) -> list[ReportRecord]:
    return [correction(image(number), truth, source) for source in sources]


def test_only_volunteered_reports_with_instance_and_class_are_corrections() -> None:
    reports = [
        correction(image(1), "a", audit=True),
        correction(image(1), None, right=True),
        replace(correction(image(1), "a"), instance=None),
        correction(image(1), "a"),
    ]
    found = reviewed(claims(reports), {}, NOBODY, 9)
    assert [c.report.tag for c in found] == [reports[3].tag]


def test_a_source_may_fill_its_quota_of_a_day_and_no_more() -> None:
    mine = [correction(image(i), "a", reported_at=NOW + i / 9) for i in range(5)]
    tomorrow = [correction(image(i), "a", reported_at=NOW + 86400) for i in range(3)]
    other = [correction(image(9), "a", source="bb")]
    found = reviewed(claims([*tomorrow, *other, *mine]), {}, NOBODY, quota=3)
    by_source = Counter((c.report.source, c.state) for c in found)
    assert by_source["aa", PENDING] == 6
    assert by_source["aa", OVER_QUOTA] == 2
    assert by_source["bb", PENDING] == 1
    over = [c.report.tag for c in found if c.state == OVER_QUOTA]
    assert over == [report.tag for report in mine[3:]]


def test_a_review_decides_and_a_revoked_source_has_no_say() -> None:
    one, two, three = (correction(image(i), "a", source=f"{i:02x}") for i in range(3))
    reviews = {one.tag: Review(ACCEPTED, "me", "now"), two.tag: Review(ACCEPTED, "me", "now")}
    found = reviewed(claims([one, two, three]), reviews, frozenset({"01"}), 9)
    assert {c.report.tag: c.state for c in found} == {
        one.tag: ACCEPTED, two.tag: REVOKED, three.tag: PENDING,
    }  # fmt: skip


def test_proven_sources_that_agree_accept_each_others_corrections() -> None:
    known = frozenset({"aa", "bb"})
    cases = {
        "two agree": of(1, "a", "aa", "bb"),
        "one source twice": [correction(image(2), "a", "aa", note=str(i)) for i in range(2)],
        "one disagrees": [*of(3, "a", "aa", "bb"), *of(3, "b", "cc")],
        "nobody has no voice": of(4, "a", "aa", ""),
        "any number of tokens that nobody knows": of(5, "a", *(f"{i:02x}" for i in range(40))),
        "one known, one unknown": of(6, "a", "aa", "cc"),
    }
    for name, reports in cases.items():
        found = accept_agreed(claims(reports), known, lambda _: 2)
        assert [c.state == AGREED for c in found] == [name == "two agree"] * len(reports), name


@pytest.mark.parametrize(
    ("accepted", "rejected", "expected"),
    [(4, 0, False), (5, 0, True), (7, 1, True), (6, 1, False), (0, 9, False), (100, 70, True)],
)
def test_a_source_is_proven_by_what_people_accepted_of_it(
    accepted: int, rejected: int, expected: bool
) -> None:
    found = in_state(ACCEPTED, (correction(image(i), "a") for i in range(accepted)))
    found += in_state(REJECTED, (correction(image(-1 - i), "a") for i in range(rejected)))
    assert ("aa" in proven(found)) is expected
    # What sources agreed on proves none of them, and callers without a token are nobody.
    assert proven(in_state(AGREED, (correction(image(i), "a") for i in range(99)))) == NOBODY
    assert proven(in_state(ACCEPTED, (correction(image(i), "a", "") for i in range(99)))) == NOBODY


def crowd(sources: int, each: int, sure: float = 0.0, first: int = 0) -> list[ReportRecord]:
    """Corrections of rows of their own, of answers that are more or less sure."""
    rng = random.Random(first)
    return [
        correction(
            image(first + 1000 * s + i),
            "a",
            f"{first + s:04x}",
            confidence=rng.uniform(sure, 1),
        )
        for s in range(sources)
        for i in range(each)
    ]


def test_sources_that_correct_the_surest_answers_are_suspects_one_token_or_ten() -> None:
    honest = crowd(20, 25)
    for tokens in (1, 10):
        liars = crowd(tokens, 25, sure=0.98, first=50_000)
        found = suspects(claims([*honest, *liars]))
        assert found.keys() == {report.source for report in liars}
    assert found.popitem()[1] == (
        "25 of 25 of its reports are of answers that the version was surer of than of most"
    )


def test_a_source_is_suspect_that_reviews_or_other_sources_contradict_more_than_the_rest() -> None:
    honest = [r for i in range(40) for r in of(i, "a", f"{i % 8:02x}", f"{(i + 1) % 8:02x}")]
    against = [r for i in range(12) for r in of(i, "b", "ff")]
    assert suspects(claims([*honest, *against])).keys() == {"ff"}
    audited = [replace(report, audit=True) for report in honest]
    assert suspects(claims(against), claims(audited)).keys() == {"ff"}
    rejected = in_state(REJECTED, (correction(image(900 + i), "b", "ee") for i in range(8)))
    found = suspects([*claims(honest), *rejected])
    assert found == {"ee": "8 of 8 of its reports are contradicted by reviews or by other sources"}


def test_a_source_that_stands_alone_or_is_like_the_others_is_not_suspect() -> None:
    assert suspects(claims(crowd(1, 300, sure=0.99))) == {}
    assert suspects(claims(crowd(30, 30))) == {}
    assert suspects([]) == {}
    # One row that is reported often counts once.
    again = [correction(image(1), "b", "ff", note=str(i)) for i in range(50)]
    assert suspects(claims([*of(1, "a", "aa", "bb"), *again])) == {}


def test_honest_sources_are_suspected_in_one_of_a_hundred_crowds() -> None:
    rng, alarms = random.Random(1), 0
    blank = claims(of(1, "a", "aa"))[0]
    for _ in range(300):
        found = [
            replace(
                blank,
                row=str(rng.random()),
                report=replace(blank.report, source=f"{s:02x}", confidence=rng.random()),
            )
            for s in range(10)
            for _ in range(20)
        ]
        alarms += bool(suspects(found))
    assert alarms <= 8  # P(X > 8) is 0.004 at 1 %, which the tests fall short of


def test_suspects_are_held_back_but_not_what_a_person_accepted() -> None:
    reports = [correction(image(i), "a") for i in range(4)]
    states = (PENDING, PENDING, ACCEPTED, REJECTED)
    found = [replace(c, state=s) for c, s in zip(claims(reports), states, strict=True)]
    held = hold_back(found, {"aa": "for a reason"})
    assert [c.state for c in held] == [SUSPECT, SUSPECT, ACCEPTED, REJECTED]
    assert hold_back(found, {"bb": "another"}) == found


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


def states_of(inbox: Inbox) -> dict[str, str]:
    return {c.report.tag: c.state for c in inbox.evaluate()[0]}


def record(place: FeedbackPlace, reports: Sequence[ReportRecord]) -> None:
    assert all(map(place.record, reports))


def test_an_inbox_reads_a_report_once_and_its_reviews_at_each_look(
    place: FeedbackPlace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = of(1, "a", "aa", "bb")
    record(place, [first])
    inbox = Inbox(place, "mnist", Reviewing())
    torn = tmp_path / f"feedback/mnist/reports/{first.day}/{'0' * 32}.json"
    torn.write_text("{")
    assert states_of(inbox) == states_of(inbox) == {first.tag: PENDING}
    assert caplog.text.count("a report is left out") == 1
    record(place, [second])
    Reviews(place, "mnist").add(first.tag, ACCEPTED)
    Reviews(place, "mnist").revoke("bb", "nonsense")
    assert states_of(inbox) == {first.tag: ACCEPTED, second.tag: REVOKED}


def test_a_liar_who_earned_trust_is_held_back_once_it_stands_out(place: FeedbackPlace) -> None:
    honest, sleeper = crowd(8, 20), crowd(2, 30, sure=0.99, first=9000)
    agreeing = [replace_source(report, "bb", "cc") for report in honest[:3]]
    record(place, [*honest, *sleeper, *(r for pair in agreeing for r in pair)])
    reviews = Reviews(place, "mnist")
    inbox = Inbox(place, "mnist", Reviewing(auto_accept=2))
    for report in [*honest, *sleeper]:
        if int(report.tag, 16) % 3 == 0:
            reviews.add(report.tag, ACCEPTED)
    found, why = inbox.evaluate()
    assert why.keys() == {report.source for report in sleeper}
    waiting = [c for c in found if c.report.source in why and c.state != ACCEPTED]
    assert waiting
    assert {c.state for c in waiting} == {SUSPECT}


def test_what_was_accepted_by_agreement_is_so_while_the_sources_agree(place: FeedbackPlace) -> None:
    one, other = of(1, "a", "aa", "bb")
    known = crowd_of(5, "aa") + crowd_of(5, "bb", 50)
    record(place, [one, other, *known])
    reviews = Reviews(place, "mnist")
    for report in known:
        reviews.add(report.tag, ACCEPTED)
    reviews.add(one.tag, AGREED, sources=2)
    assert states_of(Inbox(place, "mnist", Reviewing()))[one.tag] == AGREED
    for sources in (3, 0, "2"):  # more than there are; none; not a number
        reviews.add(one.tag, AGREED, sources=sources)  # type: ignore[arg-type]
        assert states_of(Inbox(place, "mnist", Reviewing()))[one.tag] == PENDING
    reviews.add(one.tag, AGREED, sources=2)
    reviews.revoke("bb", "false")
    assert states_of(Inbox(place, "mnist", Reviewing()))[one.tag] == PENDING


def crowd_of(count: int, source: str, first: int = 10) -> list[ReportRecord]:
    return [correction(image(first + i), "a", source) for i in range(count)]


def replace_source(report: ReportRecord, *sources: str) -> list[ReportRecord]:
    assert report.instance is not None
    return [correction(report.instance, report.truth, source) for source in sources]


def test_instances_come_when_they_are_asked_for(place: FeedbackPlace, tmp_path: Path) -> None:
    reports = [correction(image(i), "a") for i in range(3)]
    record(place, reports)
    found, _ = Inbox(place, "mnist", Reviewing()).evaluate()
    assert [c.report.instance for c in found] == [None] * 3
    gone, changed, kept = (c.report.tag for c in found)
    files = {path.stem: path for path in (tmp_path / "feedback/mnist/reports").rglob("*.json")}
    files[gone].unlink()
    files[changed].write_bytes(files[kept].read_bytes().replace(kept.encode(), changed.encode()))
    (whole,) = with_instances(place, "mnist", found)
    assert whole.report.tag == kept
    assert any((whole.instance == r.instance).all() for r in reports if r.tag == kept)


def test_with_the_keys_forged_records_are_no_corrections(tmp_path: Path) -> None:
    league = League(tmp_path)
    league.add(2, "ant", "bee", "bee", audit=False)
    (real,) = league.add(1, "ant", "bee", "cat", audit=False)
    league.place.record(replace(real, tag="0" * 32, receipt=real.receipt[:-32] + "0" * 32))
    # The confidence decides who is suspect.
    surer = replace(league.report("ant", "bee", "cat", audit=False), confidence=0.5)
    league.place.record(surer)
    assert len(Inbox(league.place, "zoo", Reviewing()).evaluate()[0]) == 5
    assert len(Inbox(league.place, "zoo", Reviewing(keys=lambda: KEYS)).evaluate()[0]) == 3
