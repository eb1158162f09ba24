import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import CHAMPION, Store
from mlpserve_trainer.cli import main
from tests.trainer.conftest import FAST


def run(*arguments: str) -> int:
    return main(["train", *FAST, *arguments])


def wrong_usage(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2


def test_a_promoted_version_ends_with_0(store: Store) -> None:
    assert run() == 0
    assert store.aliases() == {CHAMPION: 1}


def test_a_rejected_version_ends_with_3(store: Store) -> None:
    assert run("--min-accuracy", "0.999") == 3
    assert store.versions() == [1]
    assert store.aliases() == {}


def test_unless_published_trains_once(store: Store) -> None:
    assert run("--unless-published") == 0
    assert run("--unless-published", "--seed", "1") == 0
    assert store.versions() == [1]


def test_unless_published_trains_again_where_nothing_was_accepted(store: Store) -> None:
    assert run("--unless-published", "--min-accuracy", "0.999") == 3
    assert run("--unless-published") == 0
    assert store.aliases() == {CHAMPION: 2}


def test_force_with_a_reason_promotes_it_anyway(store: Store) -> None:
    assert run("--min-accuracy", "0.999", "--force", "--reason", "a drill") == 0
    assert store.manifest(1).gate.verdict == "FORCED"


@pytest.mark.parametrize("arguments", [("--force",), ("--reason", "a drill")])
def test_force_and_reason_go_together(
    arguments: tuple[str, ...], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert "--force and --reason go together" in capsys.readouterr().err
    assert store.versions() == []


def test_json_is_one_object_and_alone_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--json") == 0
    captured = capsys.readouterr()
    outcome = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert (outcome["version"], outcome["verdict"]) == (1, "PROMOTED")
    assert outcome["digest"].startswith("sha256:")
    assert outcome["metrics"]["accuracy"] >= 0.9
    assert outcome["seconds"] > 0
    assert "precision" in captured.err


def test_people_get_the_report_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert "class  precision  recall" in out
    assert "version 1: PROMOTED" in out
    assert out.count("there is no champion yet") == 1
    assert "trained on digits: 1,797 rows from scikit-learn" in out


def test_people_are_told_where_the_version_is_and_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "my store"
    assert run("--store", str(place), "--model", "letters") == 0
    out = capsys.readouterr().out
    assert (place / "letters/1/report.html").is_file()
    assert f"{place}/letters/1/report.html\n" in out
    assert f"mlpserve serve --store '{place}' --model letters\n" in out
    assert "mlpserve predict --demo --model letters\n" in out


def test_people_are_told_how_to_promote_what_the_gate_rejected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--min-accuracy", "0.999") == 3
    out = capsys.readouterr().out
    assert "mlpserve models promote 1 --force --reason TEXT --store " in out
    assert "mlpserve serve" not in out


def test_output_that_is_no_terminal_gets_a_plain_line_an_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run()
    err = capsys.readouterr().err
    assert "epoch ended epoch=3 epochs=8 loss=" in err
    assert "validation_accuracy=" in err
    assert "seconds_left=0.0" in err
    assert "\x1b" not in err


def test_logs_can_be_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--log-format", "json", "--json") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    epochs = [event for event in map(json.loads, lines) if event["event"] == "epoch ended"]
    assert len(epochs) == 8
    assert all(0 < event["validation_accuracy"] <= 1 for event in epochs)


def test_a_recipe_key_is_also_an_environment_variable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_DATASET", "digits")
    monkeypatch.setenv("MLPSERVE_HIDDEN", "9,7")
    monkeypatch.setenv("MLPSERVE_EPOCHS", "3")
    assert main(["train", "--epochs", "2", "--min-accuracy", "0"]) == 0
    manifest = store.manifest(1)
    assert manifest.network.layer_sizes == (64, 9, 7, 10)
    assert manifest.recipe["epochs"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epohcs", "3"), "--epohcs: did you mean --epochs?"),
        (("--epohcs=3",), "--epohcs=3: did you mean --epochs?"),
        (("--epochs", "many"), "invalid int value: 'many'"),
        (("--hidden", "12,x"), "invalid layer sizes '12,x': expected 128 or 512,512"),
        (("--model", "../x"), "the model name '../x' must match "),
        (("--seed", "-1"), "-1 is not a number from 0 to 9,223"),
    ],
)
def test_a_wrong_flag_ends_with_2_and_a_hint(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong_usage("train", *arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "qick"), "unknown recipe 'qick': did you mean 'quick'? (a file has .toml"),
        (("--dataset", "mnits"), "did you mean mnist"),
        (("--batch-size", "0"), "recipe key batch_size: expected a whole number above 0"),
        (("--optimizer", "lion"), "expected one of adam, adamw, nesterov, sgd"),
        (("--dataset", "idx"), "needs --data-dir"),
        (("--data-dir", "letters.npz"), "--data-dir letters.npz is not used by data set digits"),
        (("--dataset", "idx:a", "--data-dir", "b"), "--data-dir b is not used by data set idx:a"),
        (("--momentum", "0.9"), "--momentum has no effect on the optimizer adam"),
        (
            ("--activations", "relu,relu,softmax"),
            "expected 2, one for each hidden layer and one for the last",
        ),
        (
            ("--activations", "relu,softmax", "--hidden-activation", "relu"),
            "give one of --activations and --hidden-activation",
        ),
    ],
)
def test_a_wrong_value_ends_with_2_and_publishes_nothing(
    arguments: tuple[str, ...], message: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert store.versions() == []


def test_no_command_is_wrong_usage() -> None:
    wrong_usage()


def test_bad_data_ends_with_1_and_one_line(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "bad.npz", X=np.full((9, 4), np.nan), y=np.arange(9))
    assert run("--dataset", "npz", "--data-dir", str(tmp_path / "bad.npz")) == 1
    err = capsys.readouterr().err
    place = (
        f"mlpserve-trainer: {tmp_path}/bad.npz: column X[:, 0] has nan in row 0, expected finite"
    )
    assert err.startswith(place)
    assert err.count("\n") == 1
    assert store.versions() == []


def test_a_refused_training_leaves_no_folder_in_the_store(store: Store, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", X=np.full((9, 4), np.nan), y=np.arange(9))
    assert run("--dataset", "npz", "--data-dir", str(tmp_path / "bad.npz")) == 1
    assert run("--hidden", "9999,9999") == 2
    assert not store.folder.exists()


def test_a_mistyped_file_is_answered_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters.npz").touch()
    assert main(["train", "--data-dir", str(tmp_path / "leters.npz")]) == 1
    assert f"there is no {tmp_path}/leters.npz: did you mean letters.npz?\n" in (
        capsys.readouterr().err
    )


def test_a_diverging_learning_rate_ends_with_1(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--optimizer", "sgd", "--learning-rate", "1e30") == 1
    assert "training diverged: the loss is" in capsys.readouterr().err
    assert not store.folder.parent.exists()


def test_a_store_that_cannot_be_written_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run("--store", str(tmp_path / "file")) == 2
    assert "nothing was trained: cannot write" in capsys.readouterr().err


def test_datasets_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:7]] == [
        *("mnist", "digits", "idx", "npz", "csv", "images", "auto")
    ]
    assert "MNIST is not in the cache" in out


def test_recipes_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *("accurate", "augmented", "quick", "table", "vanilla")
    ]


def test_help_shows_every_default_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "[default: 0.9; MLPSERVE_MIN_ACCURACY]" in out
    assert "[MLPSERVE_LEARNING_RATE]" in out


def test_reproduce_finds_a_version_identical(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    assert main(["reproduce", "1"]) == 0
    assert f"version 1: identical, {store.manifest(1).digest}" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", ["auto", "mnist", "npz"])
def test_a_data_folder_that_is_not_there_ends_with_1(
    dataset: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    assert main(["train", "--dataset", dataset, "--data-dir", str(missing)]) == 1
    assert f"there is no {missing}\n" in capsys.readouterr().err
    assert store.versions() == []


@pytest.mark.parametrize(
    "arguments",
    [("--min-accuracy", "95"), ("--margin", "2"), ("--seed", "99999999999999999999")],
)
def test_a_number_out_of_its_range_is_wrong_usage(arguments: tuple[str, str]) -> None:
    wrong_usage("train", *arguments)


def test_a_network_beyond_the_memory_is_one_clear_line(store: Store) -> None:
    program = f"""
import resource, sys
from mlpserve_trainer.cli import main
from tests.trainer.conftest import FAST
resource.setrlimit(resource.RLIMIT_AS, ({3 * 2**29}, {3 * 2**29}))
sys.exit(main("train --dataset digits --hidden 200000 --batch-size 2000".split()))
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a smaller --hidden needs less" in done.stderr.splitlines()[-1]


def test_a_network_beyond_the_format_is_wrong_usage(store: Store) -> None:
    assert main(["train", "--dataset", "digits", "--hidden", "9999,9999"]) == 2


def test_one_row_a_class_is_too_few(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "few.npz"
    np.savez(path, X=np.zeros((30, 4), np.uint8), y=np.arange(30))
    assert main(["train", "--dataset", "npz", "--data-dir", str(path)]) == 1
    assert "too few" in capsys.readouterr().err
    assert store.versions() == []


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mlpserve-trainer {version('mlpserve')}\n"
