"""From reports to the rows of a training, without a training."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_trainer.corrections.batch import Batch, choose, live_holdout, with_corrections
from mlpserve_trainer.corrections.collect import CorrectionSettings, collect
from mlpserve_trainer.corrections.quarantine import (
    AGREED,
    OVER_QUOTA,
    PENDING,
    REVOKED,
    Correction,
    agreed,
    corrections,
)
from mlpserve_trainer.corrections.reviews import ACCEPTED, REJECTED, Review, Reviews
from mlpserve_trainer.datasets import Dataset
from tests.support.corrections import NOW, correction
from tests.support.reports import KEYS, League

NOBODY: frozenset[str] = frozenset()


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (4, 4)).astype(np.float32) / 255


def accepted(reports: Sequence[ReportRecord]) -> list[Correction]:
    return [Correction(report, ACCEPTED) for report in reports]


def states(reports: Sequence[ReportRecord], quota: int = 100) -> list[str]:
    return [c.state for c in corrections(reports, {}, NOBODY, quota)]


def test_only_volunteered_reports_with_instance_and_class_are_corrections() -> None:
    reports = [
        correction(image(1), "a", audit=True),
        correction(image(1), None, right=True),
        replace(correction(image(1), "a"), instance=None),
        correction(image(1), "a"),
    ]
    assert [c.report for c in corrections(reports, {}, NOBODY, 9)] == reports[3:]


def test_a_source_may_fill_its_quota_of_a_day_and_no_more() -> None:
    mine = [correction(image(i), "a", reported_at=NOW + i / 9) for i in range(5)]
    tomorrow = [correction(image(i), "a", reported_at=NOW + 86400) for i in range(3)]
    other = [correction(image(9), "a", source="bb")]
    found = corrections([*tomorrow, *other, *mine], {}, NOBODY, quota=3)
    by_source = Counter((c.report.source, c.state) for c in found)
    assert by_source["aa", PENDING] == 6
    assert by_source["aa", OVER_QUOTA] == 2
    assert by_source["bb", PENDING] == 1
    assert [c.report for c in found if c.state == OVER_QUOTA] == mine[3:]


def test_a_review_decides_and_a_revoked_source_has_no_say() -> None:
    one, two, three = (correction(image(i), "a", source=f"{i:02x}") for i in range(3))
    reviews = {one.tag: Review(ACCEPTED, "me", "now"), two.tag: Review(ACCEPTED, "me", "now")}
    found = corrections([one, two, three], reviews, frozenset({"01"}), 9)
    assert {c.report.tag: c.state for c in found} == {
        one.tag: ACCEPTED, two.tag: REVOKED, three.tag: PENDING,
    }  # fmt: skip


def test_sources_that_agree_accept_each_others_corrections() -> None:
    def of(number: int, truth: str, *sources: str) -> list[ReportRecord]:
        return [correction(image(number), truth, source) for source in sources]

    cases = {
        "two agree": of(1, "a", "aa", "bb"),
        "one source twice": [correction(image(2), "a", "aa", note=str(i)) for i in range(2)],
        "one disagrees": [*of(3, "a", "aa", "bb"), *of(3, "b", "cc")],
        "nobody has no voice": of(4, "a", "aa", ""),
    }
    for name, reports in cases.items():
        found = agreed(corrections(reports, {}, NOBODY, 9), 2)
        assert [c.state == AGREED for c in found] == [name == "two agree"] * len(reports), name


def test_each_row_is_taken_once_and_never_in_contradiction(stripes: Dataset) -> None:
    reports = [
        correction(image(1), "a"),
        correction(image(1), "a", source="bb", reported_at=NOW + 5),
        correction(image(2), "a"),
        correction(image(2), "b"),
        correction(image(3), "unheard of"),
        correction(np.zeros((3, 3), np.float32), "a"),
    ]
    batch = choose(accepted(reports), stripes, 1)
    assert [c.report for c in (*batch.training, *batch.live)] == reports[:1]
    assert {reason: count for reason, count in batch.left_out.items() if count} == {
        "of a row twice": 1, "in contradiction": 2, "of an unknown class": 1,
        "of another shape": 1,
    }  # fmt: skip


def test_one_row_of_five_goes_into_the_live_holdout_by_its_hash(stripes: Dataset) -> None:
    reports = [correction(image(i), "abc"[i % 3]) for i in range(200)]
    batch = choose(accepted(reports), stripes, 1)
    assert len(batch.training) + len(batch.live) == 200
    assert 25 <= len(batch.live) <= 60
    # Whatever its source, and whatever else there is.
    again = [correction(image(i), "abc"[i % 3], source="cc") for i in range(100)]
    live = {c.instance.tobytes() for c in choose(accepted(again), stripes, 1).live}
    assert live == {c.instance.tobytes() for c in batch.live} & {
        report.instance.tobytes() for report in again if report.instance is not None
    }


def test_a_batch_has_at_most_a_share_of_the_set_and_of_each_class_the_newest(
    stripes: Dataset,
) -> None:
    reports = [correction(image(i), "a", reported_at=NOW + i) for i in range(100)]
    own = int((stripes.labels == 0).sum())
    batch = choose(accepted(reports), stripes, 0.1)
    taken = [c.report.reported_at for c in batch.training]
    assert len(taken) == math.ceil(0.1 * own)
    assert min(taken) > NOW + 100 - 2 * len(taken)
    mixed = [correction(image(i), "abc"[i % 3]) for i in range(200)]
    assert len(choose(accepted(mixed), stripes, 0.1).training) <= 30
    assert len(choose(accepted(mixed), stripes, 0).training) == 0


def test_rows_come_back_as_they_were_sent(stripes: Dataset) -> None:
    reports = [correction(image(i), "b") for i in range(30)]
    batch = choose(accepted(reports), stripes, 1)
    data = with_corrections(stripes, batch)
    added = data.inputs[len(stripes.inputs) :]
    assert added.dtype == np.uint8
    assert data.added == len(batch.training) == len(added)
    for row, chosen in zip(added, batch.training, strict=True):
        np.testing.assert_array_equal(row, np.rint(chosen.instance * 255))
    assert set(data.labels[-data.added :]) == {1}
    live = live_holdout(stripes, batch)
    assert live is not None
    assert len(live) == len(batch.live)
    assert data.origins[-1].name == "corrections"
    scaled = replace(stripes, inputs=(stripes.inputs / 255).astype(np.float32), input_maximum=1)
    assert with_corrections(scaled, batch).inputs.dtype == np.float32


def test_without_corrections_a_data_set_stays_what_it_is(stripes: Dataset) -> None:
    assert with_corrections(stripes, Batch()) is stripes
    assert live_holdout(stripes, Batch()) is None


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


def test_reviews_are_kept_and_may_be_changed(place: FeedbackPlace) -> None:
    reviews = Reviews(place, "mnist")
    assert (reviews.all(), reviews.revoked()) == ({}, frozenset())
    reviews.add("ab12", ACCEPTED, "clearly an a")
    reviews.add("ab12", REJECTED, "no, a smear")
    reviews.revoke("cc", "reports nonsense")
    reviews.revoke("", "without tokens anybody may")
    (review,) = reviews.all().values()
    assert (review.verdict, review.reason) == (REJECTED, "no, a smear")
    assert "@" in review.by
    assert reviews.revoked() == {"cc", ""}
    assert Reviews(place, "letters").revoked() == frozenset()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"verdict": "perhaps", "by": "", "at": ""}', '{"more": 1}', "\udcff"]
)
def test_a_damaged_review_is_none_and_a_damaged_revocation_holds(
    place: FeedbackPlace, tmp_path: Path, text: str
) -> None:
    for folder in ("reviews", "revoked"):
        file = tmp_path / "feedback/mnist" / folder / "ab12.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(text.encode(errors="surrogateescape"))
    assert Reviews(place, "mnist").all() == {}
    assert Reviews(place, "mnist").revoked() == {"ab12"}


def test_with_the_keys_forged_records_are_no_corrections(tmp_path: Path) -> None:
    league = League(tmp_path)
    league.add(2, "ant", "bee", "bee", audit=False)
    (real,) = league.add(1, "ant", "bee", "cat", audit=False)
    forged = replace(real, tag="0" * 32, receipt=real.receipt[:-32] + "0" * 32)
    league.place.record(forged)
    settings = CorrectionSettings(place=tmp_path / "feedback")
    assert len(collect(settings, "zoo")) == 4
    assert len(collect(replace(settings, keys=KEYS), "zoo")) == 3
