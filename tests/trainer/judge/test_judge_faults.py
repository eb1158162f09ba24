"""A judge that is killed, or has no space, amid a decision."""

import errno
import shutil
from pathlib import Path

import pytest

from mlpserve_model import CHALLENGER, CHAMPION, Store, StoreError
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_trainer.judge.judge import Judge, JudgeSettings
from mlpserve_trainer.judge.replay import replay
from tests.support.faults import fail_at
from tests.support.kills import killed_before_each_call
from tests.support.reports import League

SETTINGS = JudgeSettings(probation=0)


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
