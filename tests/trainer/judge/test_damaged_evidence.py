"""Records that were damaged or made up after a decision: the verdicts on them."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mlpserve_model.store.evidence.records import ReportRecord, decode_report, encode_report
from mlpserve_trainer.cli import main
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.judge.judge import Judge, JudgeSettings
from mlpserve_trainer.judge.replay import replay
from tests.support.reports import KEYS, League

SETTINGS = JudgeSettings(keys=lambda: KEYS)
NO_RECEIPT = "not a receipt for an answer of zoo, or its key is withdrawn"


class Decided(NamedTuple):
    """A decision on nine rows, all won, and the file of one of their reports."""

    league: League
    digest: str
    file: Path

    @property
    def report(self) -> ReportRecord:
        return decode_report(self.file.read_bytes())

    def change(self, **fields: object) -> None:
        self.file.write_bytes(encode_report(replace(self.report, **fields)))  # type: ignore[arg-type]


@pytest.fixture
def decided(tmp_path: Path) -> Decided:
    league = League(tmp_path)
    later = int(time.time()) + 60  # than the pair is named again, however slow the machine is
    reports = league.add(9, "ant", "bee", "bee", answered_at=later)
    (decision,) = Judge(league.store, league.place, SETTINGS).act()
    first = min(reports, key=lambda report: report.tag)
    file = tmp_path / f"feedback/zoo/reports/{first.day}/{first.tag}.json"
    return Decided(league, decision.evidence.digest, file)


def tear(at: Decided) -> None:
    at.file.write_bytes(at.file.read_bytes()[:-40])


def remove(at: Decided) -> None:
    at.file.unlink()


def link(at: Decided) -> None:
    elsewhere = at.file.rename(at.file.parents[4] / "elsewhere.json")
    at.file.symlink_to(elsewhere)


def move_to_another_day(at: Decided) -> None:
    day = at.file.parent.parent / str(at.report.day + timedelta(days=1))
    day.mkdir()
    at.file.rename(day / at.file.name)


def forge_the_answer(at: Decided) -> None:
    at.change(label=2, confidence=0.25)


def volunteer(at: Decided) -> None:
    at.change(audit=False)


def sign_for_another_model(at: Decided) -> None:
    """A receipt of the same key, but for an answer of another model."""
    receipt = KEYS.verify(bytes.fromhex(at.report.receipt), "zoo")
    _take_receipt(at, KEYS.sign(receipt, "farm").hex())


def sign_with_nobodys_key(at: Decided) -> None:
    _take_receipt(at, at.report.receipt[:-32] + "0" * 32)


def _take_receipt(at: Decided, receipt: str) -> None:
    """Let a file in the place of the old one have this receipt; the tag is the file's name."""
    report = replace(at.report, receipt=receipt, tag=receipt[-32:])
    at.file.write_bytes(encode_report(report))


def change_the_instance(at: Decided) -> None:
    instance = at.report.instance
    assert instance is not None
    at.change(instance=np.where(instance == 1, np.float32(0.9), instance))


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        (tear, "not JSON: "),
        (remove, "it is not there, or no audited report of a row of its own"),
        (link, "it is not there, or no audited report of a row of its own"),
        (move_to_another_day, "it is not the report of its name"),
        (forge_the_answer, "its label, confidence is not as in the receipt"),
        (volunteer, "its audit is not as in the receipt"),
        (sign_for_another_model, "it is not the report of its name"),
        (sign_with_nobodys_key, "it is not the report of its name"),
        (change_the_instance, "its instance is not the one that was answered"),
    ],
)
def test_a_damaged_report_is_named_with_the_reason_and_counts_no_more(
    decided: Decided, damage: Callable[[Decided], None], verdict: str
) -> None:
    tag = decided.file.stem
    damage(decided)
    with pytest.raises(DataError) as refused:
        replay(decided.league.store, decided.league.place, decided.digest, SETTINGS)
    expected = f"1 of the 9 reports of this decision cannot be used now, the first of them {tag}: "
    assert str(refused.value).startswith(expected)
    assert verdict in str(refused.value).removeprefix(expected)


@pytest.mark.parametrize(
    "of_another", [sign_for_another_model, sign_with_nobodys_key], ids=["model", "key"]
)
def test_a_report_with_a_foreign_receipt_under_its_own_name_is_no_evidence(
    decided: Decided, of_another: Callable[[Decided], None]
) -> None:
    league = decided.league
    league.point("challenger", 2)
    league.point("champion", 1)
    before = Judge(league.store, league.place, SETTINGS).evaluate()[-1].evidence.labels
    of_another(decided)
    named = decided.file.with_name(f"{decided.report.tag}.json")
    decided.file.rename(named)
    again = Judge(league.store, league.place, SETTINGS).evaluate()[-1].evidence
    assert again.labels == before - 1
    with pytest.raises(DataError, match="cannot be used now"):
        replay(league.store, league.place, decided.digest, SETTINGS)


def test_a_copy_of_a_report_counts_nowhere(decided: Decided) -> None:
    report = decided.report
    (decided.file.with_name("0" * 32 + ".json")).write_bytes(decided.file.read_bytes())
    for day in (report.day - timedelta(days=1), report.day + timedelta(days=1)):
        folder = decided.file.parent.parent / str(day)
        folder.mkdir()
        (folder / decided.file.name).write_bytes(decided.file.read_bytes())
    (decided.file.parent / "copy").mkdir()
    (decided.file.parent / "copy" / decided.file.name).write_bytes(decided.file.read_bytes())
    found = replay(decided.league.store, decided.league.place, decided.digest, SETTINGS)
    assert found.differences == ()
    assert found.again.evidence.labels == 9


def test_a_changed_claim_is_a_difference_that_no_key_can_tell(decided: Decided) -> None:
    decided.change(truth="ant")
    found = replay(decided.league.store, decided.league.place, decided.digest, SETTINGS)
    assert "wins: recorded 9, now 8" in found.differences


@pytest.mark.parametrize("digest", ["sha256:../../../../escaped", "sha256:" + "0" * 64])
def test_a_hostile_history_reads_no_file_outside(
    decided: Decided, tmp_path: Path, digest: str
) -> None:
    (tmp_path / "escaped.json").write_text(json.dumps({"tags": []}))
    history = tmp_path / "store/zoo/history.jsonl"
    history.write_text(history.read_text().replace(decided.digest, digest))
    with pytest.raises(Exception, match=r"is not the name of a file|has no zoo/decisions"):
        replay(decided.league.store, decided.league.place, digest, SETTINGS)


def test_the_command_ends_with_the_verdict(
    decided: Decided, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "store"), "--model", "zoo"]
    command = ["judge", *where, "--feedback", str(tmp_path / "feedback"), "--replay"]
    assert main([*command, decided.digest]) == 0
    decided.change(truth="ant")
    assert main([*command, decided.digest]) == 1
    assert "wins: recorded 9, now 8" in capsys.readouterr().out
    tear(decided)
    assert main([*command, decided.digest]) == 1
    assert f"{decided.file.stem}: not JSON" in capsys.readouterr().err
