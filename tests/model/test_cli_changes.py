"""mlpserve-models as a person or a script uses it: what it changes and verifies."""

import errno
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpserve_model import CHAMPION, Store
from tests.model.conftest import Command
from tests.support.faults import fail_at
from tests.support.forging import Publish
from tests.support.patching import patch_method_of


def test_promote_moves_the_champion_and_records_who_when_and_why(
    models: Command, three: None, store: Store
) -> None:
    run = models("promote", "3", "--reason", "it is better")
    assert (run.code, run.out) == (0, "champion: 1 -> 3\n")
    assert store.resolve(CHAMPION) == 3
    event = store.history()[-1]
    assert (event["event"], event["version"], event["previous"]) == ("promote", 3, 1)
    assert (event["reason"], event["alias"]) == ("it is better", "champion")
    assert event["actor"]
    assert event["time"]


def test_promote_makes_other_aliases_too(models: Command, three: None, store: Store) -> None:
    run = models("promote", "3", "--alias", "canary", "--reason", "try", "--json")
    assert run.json == {"alias": "canary", "version": 3, "previous": None}
    assert store.aliases() == {"champion": 1, "canary": 3}


@pytest.mark.parametrize("command", [["promote", "2"], ["rollback", "--to", "2"]])
def test_a_version_that_the_gate_rejected_is_refused(
    command: list[str], models: Command, three: None, store: Store
) -> None:
    run = models(*command, "--reason", "why")
    assert run.code == 1
    assert "the gate rejected version 2: as the test says" in run.err
    assert store.aliases() == {"champion": 1}
    assert store.history()[-1]["reason"] == "a test"


def test_a_rejected_version_is_promoted_by_force_as_a_copy_that_says_why(
    models: Command, three: None, store: Store
) -> None:
    run = models("promote", "2", "--force", "--reason", "the holdout was wrong")

    assert run.code == 0
    assert run.out.splitlines() == [
        "version 2, which the gate rejected, is published again as 4",
        "champion: 1 -> 4",
    ]
    rejected, forced = store.verify(2), store.verify(4)
    assert rejected.gate.verdict == "REJECTED"  # a published version never changes
    assert forced.gate.verdict == "FORCED"
    assert forced.gate.reasons[:2] == ("forced: the holdout was wrong", "rejected as version 2")
    assert (forced.files, forced.digest) == (rejected.files, rejected.digest)


def test_promoting_to_where_the_alias_is_does_nothing_and_says_so(
    models: Command, three: None, store: Store
) -> None:
    before = store.history()

    run = models("promote", "1", "--reason", "again")

    assert (run.code, run.out) == (0, "champion is at 1 already: nothing to do\n")
    assert store.history() == before


def test_rollback_moves_the_champion_back_and_records_who_when_and_why(
    models: Command, three: None, store: Store
) -> None:
    models("promote", "3", "--reason", "newer")
    run = models("rollback", "--to", "1", "--reason", "it answers nonsense", "--json")
    assert (run.code, run.json) == (0, {"alias": "champion", "version": 1, "previous": 3})
    assert store.resolve(CHAMPION) == 1
    event = store.history()[-1]
    assert (event["event"], event["version"], event["previous"]) == ("rollback", 1, 3)
    assert event["reason"] == "it answers nonsense"
    assert "@" in event["actor"]
    assert re.match(r"20\d\d-", event["time"])


@pytest.mark.parametrize("command", [["promote", "3"], ["rollback", "--to", "3"]])
@pytest.mark.parametrize("file", ["model.npz", "golden.npz", "manifest.json", "report.html"])
def test_a_damaged_target_is_refused_and_the_alias_stays(
    file: str, command: list[str], models: Command, three: None, store: Store, publish: Publish
) -> None:
    publish(files={"report.html": b"<p>fine</p>"})
    path = store.path(4) / file
    path.write_bytes(path.read_bytes()[:-2])
    command = [*command[:-1], "4"]
    run = models(*command, "--reason", "why")
    assert run.code == 1
    assert file in run.err
    assert store.aliases() == {"champion": 1}
    assert [event["event"] for event in store.history()].count("rollback") == 0


def test_verify_of_a_whole_store_has_exit_code_0(models: Command, three: None) -> None:
    run = models("verify")
    assert run.code == 0
    assert run.out.splitlines() == ["     1  ok", "     2  ok", "     3  ok", "3 whole, 0 damaged"]


def test_verify_names_each_fault_and_has_exit_code_1(
    models: Command, three: None, damage: Callable[[int], None]
) -> None:
    damage(2)
    run = models("verify")
    assert run.code == 1
    assert re.search(r"^ +2  model\.npz has the size|^ +2  model\.npz has \d+ bytes", run.out, re.M)
    assert run.out.endswith("2 whole, 1 damaged\n")
    report = models("verify", "--json")
    assert report.code == 1
    assert [row["ok"] for row in report.json] == [True, False, True]
    assert report.json[0]["fault"] is None
    assert models("verify", "champion", "3").code == 0


def test_verify_finds_a_changed_report(models: Command, publish: Publish, store: Store) -> None:
    publish(files={"report.html": b"<p>fine</p>"})
    (store.path(1) / "report.html").write_bytes(b"<p>evil</p>")
    run = models("verify")
    assert run.code == 1
    assert "report.html has the digest" in run.out


def test_verify_lists_an_unreadable_version_among_the_others(
    models: Command, three: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, store.path(2) / "model.npz", errno.EIO)
    run = models("verify", "--json")
    assert run.code == 1
    assert [row["ok"] for row in run.json] == [True, False, True]
    assert "cannot read" in run.json[1]["fault"]


@pytest.mark.parametrize("command", ["list", "verify"])
def test_a_version_that_is_pruned_meanwhile_is_left_out(
    command: str, models: Command, three: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Store.versions

    def then_pruned(opened: Store) -> list[int]:
        found = versions(opened)
        shutil.rmtree(store.path(2))
        return found

    patch_method_of(
        monkeypatch, Store, "versions", lambda opened: str(opened) == str(store), then_pruned
    )
    run = models(command, "--json")
    assert run.code == 0
    assert {row["version"] for row in run.json} == {1, 3}


def test_prune_says_what_it_removed(models: Command, three: None, store: Store) -> None:
    assert models("prune", "--keep", "1", "--json").json == {"removed": [2], "kept": [1, 3]}
    assert models("prune", "--keep", "1").out == "versions removed: none\n"
    assert store.versions() == [1, 3]


def test_a_reason_in_no_valid_encoding_is_recorded(store: Store, publish: Publish) -> None:
    publish()
    command = [str(Path(sys.executable).with_name("mlpserve-models")).encode(), b"promote", b"1"]
    where = [b"--store", str(store.folder.parent).encode(), b"--model", b"tiny"]
    subprocess.run([*command, *where, b"--reason", b"\xff"], check=True, capture_output=True)
    assert store.history()[-1]["reason"] == "\udcff"
