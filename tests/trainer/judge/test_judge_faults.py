"""A judge that is killed, or has no space, amid a decision."""

import errno
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpserve_model import CHALLENGER, CHAMPION, CorruptVersion, Store, StoreError
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_trainer.judge.judge import Judge, JudgeSettings
from mlpserve_trainer.judge.replay import replay
from tests.support.faults import fail_at
from tests.support.kills import killed_before_each_call
from tests.support.logs import fields_of
from tests.support.reports import League

SETTINGS = JudgeSettings(probation=0)


@pytest.fixture
def league(tmp_path: Path) -> League:
    return League(tmp_path)


def act(folder: Path) -> None:
    Judge(Store(folder / "store", "zoo"), FeedbackPlace(folder / "feedback"), SETTINGS).act()


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("truth", "action"), [("bee", "promote"), ("ant", "retire")])
def test_a_killed_judge_has_decided_or_not_and_the_next_one_goes_on(
    tmp_path: Path, truth: str, action: str, step: int
) -> None:
    start, folder = tmp_path / "start", tmp_path / "folder"
    League(start).add(9, "ant", "bee", truth)
    decided = {CHAMPION: 2} if action == "promote" else {CHAMPION: 1}

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)

    seen = []
    for _ in killed_before_each_call(lambda: act(folder), prepare, step):
        store = Store(folder / "store", "zoo")
        seen.append(store.aliases())
        act(folder)
        assert store.aliases()[CHAMPION] == decided[CHAMPION]
        assert store.aliases().get(CHALLENGER) in (None, decided[CHAMPION])
        (digest,) = {
            event["evidence"]["digest"]
            for event in store.history()
            if event.get("evidence") and event["event"] == action
        }
        place = FeedbackPlace(folder / "feedback")
        assert replay(store, place, digest, SETTINGS).differences == ()
    assert seen[0] == {CHAMPION: 1, CHALLENGER: 2}
    assert seen[-1] == decided


def test_a_champion_before_that_was_pruned_is_no_rival_and_keeps_no_other_waiting(
    league: League,
) -> None:
    league.point(CHAMPION, 2)
    judge = Judge(league.store, league.place, JudgeSettings())
    assert [decision.pair.is_probation for decision in judge.evaluate()] == [True]
    assert league.store.prune(1) == [1]
    assert judge.evaluate() == []
    league.point(CHALLENGER, league.publish(0))
    assert [decision.pair.rival for decision in judge.evaluate()] == [3]


def test_a_damaged_challenger_keeps_no_champion_from_its_probation(
    league: League, caplog: pytest.LogCaptureFixture
) -> None:
    league.point(CHAMPION, 2)
    league.point(CHALLENGER, league.publish(0))
    (league.store.path(3) / "model.npz").write_bytes(b"damaged")
    judge = Judge(league.store, league.place, JudgeSettings())
    for _ in range(3):
        (decision,) = judge.evaluate()
        assert decision.pair.is_probation
    (said,) = fields_of(caplog, "a pair cannot be compared")
    assert (said["champion"], said["rival"]) == (2, 3)
    assert "model.npz has 7 bytes" in said["reason"]
    (league.store.path(1) / "model.npz").write_bytes(b"damaged")
    with pytest.raises(CorruptVersion):
        Judge(league.store, league.place, JudgeSettings()).evaluate()


def test_reports_that_were_read_before_a_failure_are_not_lost(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    league.add(5, "ant", "bee", "bee")
    judge, read = Judge(league.store, league.place, SETTINGS), league.place.files.contents

    def failing(*arguments: Any) -> Iterator[Any]:
        yield from itertools.islice(read(*arguments), 3)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failed:
        failed.setattr(league.place.files, "contents", failing)
        with pytest.raises(StoreError, match="Input/output error"):
            judge.evaluate()
    for _ in range(2):
        assert judge.evaluate()[0].evidence.labels == 5


@pytest.mark.parametrize("folder", ["store", "feedback"])
def test_a_judge_on_a_full_disk_decides_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    league = League(tmp_path)
    league.add(9, "ant", "bee", "bee")
    with monkeypatch.context() as full:
        fail_at(full, tmp_path / folder, errno.ENOSPC, "fsync")
        with pytest.raises(StoreError, match="No space left on device"):
            act(tmp_path)
    assert league.store.aliases() == {CHAMPION: 1, CHALLENGER: 2}
    act(tmp_path)
    assert league.store.aliases() == {CHAMPION: 2}
