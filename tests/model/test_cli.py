"""mlpserve-models as a person or a script uses it: what it shows."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mlpserve_model import Store
from mlpserve_model.cli import main
from tests.model.conftest import Command
from tests.support.forging import EditManifest, Publish


def test_list_shows_the_newest_first_with_verdict_accuracy_and_aliases(
    models: Command, three: None
) -> None:
    run = models("list")
    assert (run.code, run.err) == (0, "")
    header, *lines = [re.split(r"\s{2,}", line.strip()) for line in run.out.splitlines()]
    assert header == ["VERSION", "VERDICT", "ALIASES", "ACCURACY", "CREATED", "REASON"]
    assert [line[:2] for line in lines] == [["3", "FORCED"], ["2", "REJECTED"], ["1", "PROMOTED"]]
    assert all("0.7500" in line for line in lines)
    assert lines[2][2] == "champion"
    assert lines[1][-1] == "as the test says"  # why it was rejected


def test_list_shows_the_models_of_the_store(
    models: Command, three: None, store: Store, publish: Publish
) -> None:
    letters = Store(store.folder.parent, "letters")
    letters.folder.mkdir()
    (letters.folder / "7").mkdir()
    (letters.folder / "7" / "manifest.json").write_text("{}")
    (store.folder.parent / "notes").mkdir()
    run = models("list", "--models")
    lines = [line.split() for line in run.out.splitlines()]
    assert lines == [
        ["MODEL", "VERSIONS", "CHAMPION"], ["letters", "1", "none"], ["tiny", "3", "1"],
    ]  # fmt: skip
    assert models("list", "--models", "--json").json[1] == {
        "model": "tiny", "versions": 3, "champion": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    ["list", "list --json", "show", "promote 1 --reason test", "rollback --to 1 --reason test",
     "export 1 --format npz --output model.npz", "verify", "verify 1", "prune"],
)  # fmt: skip
def test_a_mistyped_model_is_answered_with_the_nearest_one(
    command: str, models: Command, three: None
) -> None:
    name, *rest = command.split()
    run = models(name, *rest, "--model", "tinny")
    assert (run.code, run.out) == (1, "")
    assert "the store has tiny; did you mean --model tiny?" in run.err


def test_list_as_json_holds_what_a_script_needs(models: Command, three: None, store: Store) -> None:
    rows = models("list", "--json").json
    assert [row["version"] for row in rows] == [3, 2, 1]
    assert rows[2] == {
        "version": 1, "aliases": ["champion"], "verdict": "PROMOTED",
        "reasons": ["as the test says"], "created": store.manifest(1).created.isoformat(),
        "digest": store.manifest(1).digest, "metrics": {"accuracy": 0.75},
    }  # fmt: skip


def test_a_model_of_which_an_alias_alone_is_left_is_still_there(
    models: Command, three: None, store: Store
) -> None:
    other = Store(store.folder.parent, "other")
    shutil.copytree(store.folder, other.folder)
    for number in other.versions():
        shutil.rmtree(other.path(number))
    assert "MISSING" in models("list", "--model", "other").out
    assert models("verify", "--model", "other").code == 1


def test_list_of_a_store_that_is_not_there_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--store", str(tmp_path / "gone")]) == 0
    out = capsys.readouterr().out
    assert out == f"no versions of mnist in {tmp_path / 'gone'}: there is no such folder\n"


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mlpserve-models {version('mlpserve')}\n"


def test_list_of_an_empty_store_says_so(models: Command, store: Store) -> None:
    store.folder.mkdir(parents=True)
    assert models("list").out == f"no versions of tiny in {store.folder.parent}\n"
    assert models("list", "--json").json == []


def test_list_shows_a_damaged_manifest_and_the_others(
    models: Command, three: None, store: Store
) -> None:
    (store.path(2) / "manifest.json").write_text("{")
    assert re.search(r"2 +DAMAGED +manifest\.json is not JSON", models("list").out)
    assert [row["verdict"] for row in models("list", "--json").json] == [
        "FORCED", "DAMAGED", "PROMOTED",
    ]  # fmt: skip


def test_an_alias_of_a_version_that_is_gone_is_listed_and_found_by_verify(
    models: Command, three: None, store: Store
) -> None:
    shutil.rmtree(store.path(1))
    fault = "there is no such version, and champion points at it"
    row = models("list", "--json").json[-1]
    assert row == {"version": 1, "aliases": ["champion"], "verdict": "MISSING", "fault": fault}
    assert re.search(rf"1 +MISSING +champion +{fault}$", models("list").out, re.MULTILINE)
    run = models("verify")
    assert (run.code, "2 whole, 1 damaged" in run.out) == (1, True)
    assert f"     1  {fault}" in run.out
    assert models("verify", "--json").json[0] == {"version": 1, "ok": False, "fault": fault}
    for other in (2, 3):
        shutil.rmtree(store.path(other))
    assert models("verify").code == 1
    assert models("list").out.count("MISSING") == 1


@pytest.mark.parametrize("which", [[], ["champion"], ["1"]])
def test_show_prints_the_manifest_of_a_number_or_an_alias(
    which: list[str], models: Command, three: None, store: Store
) -> None:
    document = models("show", *which, "--json").json
    aliases = document.pop("aliases")
    assert aliases == ["champion"]
    assert document == json.loads(store.manifest(1).document)
    text = models("show", *which)
    assert text.code == 0
    assert re.search(r"^layer_sizes +4, 5, 3$", text.out, re.MULTILINE)
    assert max(map(len, text.out.splitlines())) < 300, "no line is a JSON document"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "9"], "tiny has no version 9"),
        (["show", "9" * 5000], "tiny has no version of 5000 digits"),
        (["verify", "9" * 300], "tiny has no version of 300 digits"),
        (["show", "canary"], "tiny has no alias 'canary'"),
        (["verify", "9"], "tiny has no version 9"),
        (["promote", "9", "--reason", "why"], "tiny has no version 9"),
        (["rollback", "--to", "9", "--reason", "why"], "tiny has no version 9"),
        (["promote", "1", "--reason", "why", "--alias", "Best"], "must match [a-z]"),
    ],
)
def test_what_is_not_there_fails_with_one_line(
    arguments: list[str], message: str, models: Command, three: None
) -> None:
    run = models(*arguments)
    assert run.code == 1
    assert run.out == ""
    assert message in run.err
    assert len(run.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["promote"],
        ["promote", "1"],  # without a reason
        ["promote", "one", "--reason", "why"],
        ["promote", "0", "--reason", "why"],
        ["rollback", "--to", "1"],
        ["rollback", "--reason", "why"],
        ["prune", "--keep", "0"],
        ["list", "--frobnicate"],
    ],
)
def test_wrong_usage_has_exit_code_2_and_changes_nothing(
    arguments: list[str], models: Command, three: None, store: Store
) -> None:
    run = models(*arguments)
    assert run.code == 2
    assert run.err.startswith("mlpserve-models")
    assert run.err.endswith("--help)\n")
    assert run.err.count("\n") == 1
    assert store.aliases() == {"champion": 1}


def test_a_strangers_text_neither_forges_lines_nor_drives_the_terminal(
    models: Command, three: None, edit_manifest: EditManifest
) -> None:
    text = "fine\n     3  ok\x1b[2J"

    def taint(document: dict[str, Any]) -> None:
        document["gate"]["reasons"] = [text]
        document[text] = text

    edit_manifest(taint, 2)
    for run in (models("promote", "2", "--reason", "why"), models("show", "2"), models("list")):
        lines = (run.out + run.err).splitlines()
        assert all(line.isprintable() for line in lines)
        assert "     3  ok" not in lines


def test_a_broken_alias_file_fails_with_one_line(
    models: Command, three: None, store: Store
) -> None:
    (store.folder / "aliases.json").write_text("{")
    for command in (["list"], ["promote", "3", "--reason", "why"], ["prune"]):
        run = models(*command)
        assert run.code == 1
        assert "aliases.json is not JSON" in run.err


def test_help_lists_every_setting_with_its_default_and_variable(models: Command) -> None:
    run = models("promote", "--help")
    assert run.code == 0
    text = " ".join(run.out.split())
    assert "[default: models; MLPSERVE_STORE]" in text
    assert "[default: mnist; MLPSERVE_MODEL]" in text
    assert "[default: champion; MLPSERVE_ALIAS]" in text
    assert "[MLPSERVE_REASON]" in text


def test_the_installed_command_is_this_one(store: Store, publish: Publish) -> None:
    publish()
    command = Path(sys.executable).with_name("mlpserve-models")
    arguments = ["verify", "--store", str(store.folder.parent), "--model", "tiny", "--json"]
    run = subprocess.run([command, *arguments], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [{"version": 1, "ok": True, "fault": None}]
