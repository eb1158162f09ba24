"""What the judge does with a pair of versions, and how it says so."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve_model import CHALLENGER, CHAMPION, Store
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import decode_report, encode_report
from mlpserve_model.store.evidence.reviews import Reviews
from mlpserve_model.store.evidence.statistics import log_e_value
from mlpserve_trainer.cli import main
from mlpserve_trainer.errors import DataError, UsageError
from mlpserve_trainer.judge.decision import Decision, decide
from mlpserve_trainer.judge.evidence import Evidence, digest_of
from mlpserve_trainer.judge.judge import Judge, JudgeSettings, decision_file
from mlpserve_trainer.judge.pairs import Pair, pairs
from mlpserve_trainer.judge.replay import replay
from tests.support.reports import KEYS, League

SETTINGS = JudgeSettings()


@pytest.fixture
def league(tmp_path: Path) -> League:
    return League(tmp_path)


def judge(league: League, judging: JudgeSettings = SETTINGS) -> Judge:
    return Judge(league.store, league.place, judging)


def evaluated(league: League, judging: JudgeSettings = SETTINGS) -> Decision:
    (decision,) = judge(league, judging).evaluate()
    return decision


def test_a_challenger_that_proves_better_is_promoted_with_its_figures(league: League) -> None:
    reports = league.add(9, "ant", "bee", "bee") + league.add(40, "cat", "cat", "cat")
    (decision,) = judge(league).act()
    assert (decision.action, decision.is_done) == ("promote", True)
    assert league.store.aliases() == {CHAMPION: 2}
    promotion, retirement = league.store.history()[-2:]
    assert (promotion["event"], promotion["version"], promotion["previous"]) == ("promote", 2, 1)
    assert retirement["reason"] == "champion now"
    evidence = promotion["evidence"]
    assert (evidence["labels"], evidence["wins"], evidence["losses"]) == (49, 9, 0)
    assert evidence["e_value_better"] == pytest.approx(2**10 / 10 - 0.1, rel=1e-9)
    assert evidence["digest"] == digest_of(report.tag for report in reports)
    assert (
        "2 is better than 1: E 102 at alpha 0.05, of 49 audited labels, 9 won by 2"
        in (promotion["reason"])
    )


def test_a_challenger_that_proves_worse_is_retired(league: League) -> None:
    league.add(12, "ant", "bee", "ant")
    assert judge(league).act()[0].action == "retire"
    assert league.store.aliases() == {CHAMPION: 1}
    assert league.store.history()[-1]["event"] == "retire"
    assert judge(league).act() == []


def test_a_new_champion_that_proves_worse_is_rolled_back_during_its_probation(
    league: League,
) -> None:
    league.point(CHAMPION, 2)
    league.add(12, "ant", "bee", "ant")
    assert judge(league, replace(SETTINGS, probation=0)).act(lambda: time.time() + 9) == []
    (decision,) = judge(league).act()
    assert (decision.action, decision.pair.is_probation) == ("rollback", True)
    assert league.store.aliases()[CHAMPION] == 1
    assert league.store.history()[-1]["event"] == "rollback"
    # What was rolled back to is not on probation.
    assert [pair.is_probation for pair in pairs(league.store, time.time(), 9e9)] == [False]


def test_too_few_labels_decide_nothing_and_say_how_many_more_would(league: League) -> None:
    league.add(4, "ant", "bee", "bee") + league.add(1, "ant", "bee", "ant")
    (decision,) = judge(league).act()
    assert decision.action is None
    assert league.store.aliases() == {CHAMPION: 1, CHALLENGER: 2}
    assert decision.in_words == "not decided yet, about 12 more labels are needed"
    league.add(10, "ant", "bee", "bee") + league.add(2, "ant", "bee", "ant")
    assert evaluated(league).action == "promote"


def test_without_any_difference_nothing_is_forecast(league: League) -> None:
    league.add(40, "ant", "ant", "bee")
    assert evaluated(league).in_words == "not decided yet"
    assert evaluated(league).evidence.labels == 40


def test_only_audited_answers_since_the_pair_came_to_be_are_evidence(league: League) -> None:
    since = evaluated(league).pair.since
    league.add(20, "ant", "bee", "bee", audit=False)
    league.add(20, "ant", "bee", "bee", answered_at=since - 1)
    assert evaluated(league).evidence.labels == evaluated(league).evidence.left_out == 0
    league.add(1, "ant", "bee", "bee")
    assert evaluated(league).evidence.wins == 1


def test_a_row_counts_once_by_its_first_report(league: League) -> None:
    first = league.add(1, "ant", "bee", "ant", row=7)
    league.add(30, "ant", "bee", "bee", row=7)
    found = evaluated(league).evidence
    assert (found.wins, found.losses, found.left_out) == (0, 1, 30)
    assert found.tags == (first[0].tag,)


def test_reports_without_an_instance_of_the_models_shape_are_left_out(league: League) -> None:
    league.add(2, "ant", "bee", "bee", instance=None)
    short = league.report("ant", "bee", "bee").instance
    assert short is not None
    league.add(3, "ant", "bee", "bee", instance=short[:5])
    found = evaluated(league).evidence
    assert (found.labels, found.left_out) == (0, 5)


def test_right_and_wrong_without_a_class_count_for_what_they_say(league: League) -> None:
    league.add(3, "ant", "bee", None, right=True)  # the champion's answer was right
    league.add(5, "ant", "bee", None, right=False)  # it was wrong, the rival perhaps right
    found = evaluated(league).evidence
    assert (found.wins, found.losses, found.perhaps_wins, found.perhaps_losses) == (0, 3, 5, 0)
    # A verdict on another version's answer may say nothing of either.
    league.add(2, "ant", "bee", None, right=False, label=2)
    found = evaluated(league).evidence
    assert (found.perhaps_wins, found.perhaps_losses) == (7, 2)
    league.add(2, "ant", "bee", None, right=False, weights="00000000")
    assert evaluated(league).evidence.left_out == 2


@given(*(st.integers(0, 60) for _ in range(4)), st.floats(0, 1), st.floats(0, 1))
def test_whatever_was_true_of_unclear_rows_the_evidence_is_no_larger_than_it(
    wins: int, losses: int, unclear_wins: int, unclear_losses: int, of_wins: float, of_losses: float
) -> None:
    found = Evidence(0, wins, losses, unclear_wins, unclear_losses, 0, ())
    truly_won = wins + int(of_wins * unclear_wins)
    truly_lost = losses + int(of_losses * unclear_losses)
    assert found.log_better <= log_e_value(truly_won, truly_lost) + 1e-9
    assert found.log_worse <= log_e_value(truly_lost, truly_won) + 1e-9


def test_an_infinite_e_value_can_be_written_as_json() -> None:
    evidence = Evidence(9999, 9999, 0, 0, 0, 0, ())
    decision = decide(Pair(1, 2, 0), evidence, 0.05)
    assert decision.action == "promote"
    json.dumps(decision.facts(), allow_nan=False)


def test_a_pair_that_changed_while_it_was_weighed_is_left_alone(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    league.add(12, "ant", "bee", "bee")
    judging = judge(league)
    decisions = judging.evaluate()
    league.store.drop_alias(CHALLENGER, expected=2, event="retire", reason="by hand")
    monkeypatch.setattr(judging, "evaluate", lambda now: decisions)
    judging.act()
    assert league.store.aliases() == {CHAMPION: 1}


def test_a_decision_is_computed_again_from_its_reports(league: League) -> None:
    league.add(9, "ant", "bee", "bee")
    (decision,) = judge(league).act()
    digest = decision.evidence.digest
    league.add(30, "ant", "bee", "ant")  # later ones change nothing
    again = replay(league.store, league.place, digest.removeprefix("sha256:")[:8], SETTINGS)
    assert again.differences == ()
    assert again.again == replace(decision, more_labels=None)


def test_a_replay_tells_a_report_that_was_changed_or_is_gone(
    league: League, tmp_path: Path
) -> None:
    reports = league.add(9, "ant", "bee", "bee")
    digest = judge(league).act()[0].evidence.digest
    file = tmp_path / f"feedback/zoo/reports/{reports[0].day}/{reports[0].tag}.json"
    changed = replace(decode_report(file.read_bytes()), truth="ant")
    file.write_bytes(encode_report(changed))
    again = replay(league.store, league.place, digest, SETTINGS)
    assert "wins: recorded 9, now 8" in again.differences
    file.unlink()
    with pytest.raises(DataError, match="1 of the 9 reports"):
        replay(league.store, league.place, digest, SETTINGS)
    with pytest.raises(UsageError, match="no decision 'sha256:ffff'"):
        replay(league.store, league.place, "sha256:ffff", SETTINGS)
    listed = tmp_path / "feedback" / decision_file("zoo", digest)
    listed.write_text(json.dumps({"tags": [reports[1].tag]}))
    with pytest.raises(DataError, match="not the list"):
        replay(league.store, league.place, digest, SETTINGS)


def test_with_the_keys_forged_records_are_not_evidence(league: League) -> None:
    with_keys = replace(SETTINGS, keys=lambda: KEYS)
    league.add(3, "ant", "bee", "bee")
    league.add(5, "ant", "bee", "bee", keys=ReceiptKeys(["f" * 40]))
    volunteered = league.report("ant", "bee", "bee", audit=False)
    league.place.record(replace(volunteered, audit=True))
    assert evaluated(league, with_keys).evidence.labels == 3
    assert evaluated(league).evidence.labels == 9


def test_keys_that_are_rotated_meanwhile_verify_what_comes_then(league: League) -> None:
    in_force = [KEYS]
    judging = judge(league, replace(SETTINGS, keys=lambda: in_force[-1]))
    league.add(2, "ant", "bee", "bee")
    assert judging.evaluate()[0].evidence.labels == 2
    in_force.append(ReceiptKeys(["n" * 40, "k" * 40]))
    league.add(3, "ant", "bee", "bee", keys=in_force[-1])
    assert judging.evaluate()[0].evidence.labels == 5


def test_damaged_records_are_left_out(league: League, tmp_path: Path) -> None:
    reports = league.add(9, "ant", "bee", "bee")
    file = tmp_path / f"feedback/zoo/reports/{reports[0].day}/{reports[0].tag}.json"
    file.write_bytes(file.read_bytes()[:-40])
    assert evaluated(league).evidence.labels == 8


def test_a_judge_that_evaluates_again_reads_what_is_new(
    league: League, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judging = judge(league)
    reports = league.add(4, "ant", "bee", "bee", source="aa") + league.add(1, "ant", "bee", "bee")
    files = [tmp_path / f"feedback/zoo/reports/{r.day}/{r.tag}.json" for r in reports]
    files[-1].write_bytes(b"torn")
    assert [judging.evaluate()[0].evidence.wins for _ in range(3)] == [4, 4, 4]
    assert caplog.text.count("a report is left out") == 1
    for file in files:
        file.write_bytes(b"")
    league.add(2, "ant", "bee", "ant")
    found = judging.evaluate()[0].evidence
    assert (found.wins, found.losses) == (4, 2)
    Reviews(league.place, "zoo").revoke("aa", "false")
    found = judging.evaluate()[0].evidence
    assert (found.wins, found.losses, found.left_out) == (0, 2, 0)


def command(league: League, tmp_path: Path, *more: str) -> int:
    flags = ["--store", str(tmp_path / "store"), "--model", "zoo"]
    return main(["judge", *flags, "--feedback", str(tmp_path / "feedback"), *more])


def test_the_command_prints_a_table_and_with_dry_run_does_nothing(
    league: League, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    league.add(9, "ant", "bee", "bee")
    assert command(league, tmp_path, "--dry-run") == 0
    assert "challenger 2, champion 1  9       9    0     102" in capsys.readouterr().out
    assert league.store.aliases() == {CHAMPION: 1, CHALLENGER: 2}
    assert command(league, tmp_path, "--json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["action"], document["wins"]) == ("promote", 9)
    assert league.store.aliases() == {CHAMPION: 2}
    assert command(league, tmp_path, "--replay", document["digest"]) == 0
    assert "computed again: identical" in capsys.readouterr().out
    assert command(league, tmp_path, "--alpha", "1e-4") == 0
    assert "previous 1, champion 2" in capsys.readouterr().out


def test_the_command_says_what_is_missing(
    league: League, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", "--store", str(tmp_path / "store"), "--model", "zoo"]) == 2
    assert "--feedback is required" in capsys.readouterr().err
    league.store.drop_alias(CHALLENGER, expected=2, event="retire", reason="by hand")
    assert command(league, tmp_path, "--probation", "0s") == 0
    assert "nothing to judge" in capsys.readouterr().out
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    assert command(league, tmp_path, "--receipt-keys", str(keys)) == 2


def test_an_empty_store_has_nothing_to_judge(tmp_path: Path) -> None:
    assert pairs(Store(tmp_path / "store", "zoo"), time.time(), 9.0) == []
