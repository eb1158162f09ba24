"""From accepted corrections to the rows of a training, without a training."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlpserve_model.store.evidence.corrections import Correction, row_of
from mlpserve_model.store.evidence.records import ReportRecord
from mlpserve_model.store.evidence.reviews import ACCEPTED, AGREED
from mlpserve_trainer.corrections.batch import Batch, choose, live_holdout, with_corrections
from mlpserve_trainer.datasets import Dataset
from tests.support.corrections import NOW, correction, image


def accepted(reports: Sequence[ReportRecord], state: str = ACCEPTED) -> list[Correction]:
    return [Correction(r, row_of(r.instance), state) for r in reports if r.instance is not None]


def test_each_row_is_taken_once_and_never_in_contradiction(stripes: Dataset) -> None:
    reports = [
        correction(image(1), "a"),
        correction(image(1), "a", source="bb", reported_at=NOW + 5),
        correction(image(2), "a"),
        correction(image(2), "b"),
        correction(image(3), "unheard of"),
        correction(np.zeros((3, 3), np.float32), "a"),
    ]
    batch = choose(accepted(reports), stripes, 1, 1)
    assert [c.report for c in (*batch.training, *batch.live)] == reports[:1]
    assert {reason: count for reason, count in batch.left_out.items() if count} == {
        "of a row twice": 1, "in contradiction": 2, "of an unknown class": 1,
        "of another shape": 1,
    }  # fmt: skip


def test_one_row_of_five_goes_into_the_live_holdout_by_its_hash(stripes: Dataset) -> None:
    reports = [correction(image(i), "abc"[i % 3]) for i in range(200)]
    batch = choose(accepted(reports), stripes, 1, 1)
    assert len(batch.training) + len(batch.live) == 200
    assert 25 <= len(batch.live) <= 60
    # Whatever its source, and whatever else there is.
    again = [correction(image(i), "abc"[i % 3], source="cc") for i in range(100)]
    live = {c.instance.tobytes() for c in choose(accepted(again), stripes, 1, 1).live}
    assert live == {c.instance.tobytes() for c in batch.live} & {
        report.instance.tobytes() for report in again if report.instance is not None
    }


def test_a_batch_has_at_most_a_share_of_the_set_and_of_each_class_the_newest(
    stripes: Dataset,
) -> None:
    reports = [correction(image(i), "a", reported_at=NOW + i) for i in range(100)]
    own = int((stripes.labels == 0).sum())
    batch = choose(accepted(reports), stripes, 0.1, 1)
    taken = [c.report.reported_at for c in batch.training]
    assert len(taken) == math.ceil(0.1 * own)
    assert min(taken) > NOW + 100 - 2 * len(taken)
    mixed = [correction(image(i), "abc"[i % 3]) for i in range(200)]
    assert len(choose(accepted(mixed), stripes, 0.1, 1).training) <= 30
    assert len(choose(accepted(mixed), stripes, 0, 1).training) == 0


def test_rows_come_back_as_they_were_sent(stripes: Dataset) -> None:
    reports = [correction(image(i), "b") for i in range(30)]
    batch = choose(accepted(reports), stripes, 1, 1)
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


def test_one_source_fills_its_share_of_the_room_in_all_and_of_each_class(stripes: Dataset) -> None:
    greedy = [correction(image(i), "a", reported_at=NOW + i) for i in range(100)]
    other = [correction(image(200 + i), "a", source="bb") for i in range(100)]
    room = math.ceil(0.5 * int((stripes.labels == 0).sum()))
    batch = choose(accepted(other + greedy), stripes, 0.5, 0.25)
    taken = Counter(c.report.source for c in batch.training)
    assert taken == {"aa": math.ceil(0.25 * room), "bb": math.ceil(0.25 * room)}
    assert batch.left_out["beyond the share of its source"] > 0
    many = [correction(image(i), "abc"[i % 3]) for i in range(400)]
    alone = choose(accepted(many), stripes, 0.5, 0.1)
    assert len(alone.training) == math.ceil(0.1 * math.ceil(0.5 * len(stripes.labels)))


def test_the_live_holdout_has_only_what_a_person_accepted(stripes: Dataset) -> None:
    reports = [correction(image(i), "abc"[i % 3]) for i in range(60)]
    by_person = choose(accepted(reports), stripes, 1, 1)
    by_agreement = choose(accepted(reports, AGREED), stripes, 1, 1)
    assert by_person.live
    assert by_agreement.live == ()
    unused = by_agreement.left_out["of the live holdout, reviewed by nobody"]
    assert unused == len(by_person.live)
    assert len(by_agreement.training) == len(by_person.training)
    # Of a row that both accepted, the person's verdict counts.
    both = choose(
        [*accepted(reports, AGREED), *accepted([replace(r, source="bb") for r in reports])],
        stripes,
        1,
        1,
    )
    assert len(both.live) == len(by_person.live)
