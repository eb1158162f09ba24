import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import CHAMPION, Store
from mlpserve_trainer import DataError, UsageError
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import DataLocations, Dataset
from mlpserve_trainer.training.sweep import Score, load_sweep, run_sweep, table

SWEEP = """
recipe = "{recipe}"
seeds = [0, 1]
[grid]
learning_rate = [1e-9, 0.02]
hidden = [[4], [8, 4]]
"""


@pytest.fixture
def file(tmp_path: Path, stripes: Dataset) -> Path:
    np.savez(tmp_path / "stripes.npz", X=stripes.inputs, y=stripes.labels)
    recipe = tmp_path / "small.toml"
    recipe.write_text('dataset = "npz"\nepochs = 8\nbatch_size = 16\nvalidation_fraction = 0.2\n')
    (tmp_path / "sweep.toml").write_text(SWEEP.format(recipe=recipe))
    return tmp_path / "sweep.toml"


def run(file: Path, **changes: object) -> list[Score]:
    sweep = replace(load_sweep(file), **changes)  # type: ignore[arg-type]
    places = DataLocations(file.parent / "stripes.npz", file.parent)
    return run_sweep(sweep, places, file.with_suffix(".jsonl"), 1, "local", None)


def test_every_combination_is_scored_the_best_first(file: Path) -> None:
    scores = run(file)
    assert len(scores) == 4
    assert scores[0].recipe.learning_rate == scores[1].recipe.learning_rate == 0.02
    assert scores[0].mean >= scores[1].mean > scores[2].mean
    assert all(len(score.accuracies) == 2 for score in scores)


def test_the_table_names_what_was_varied(file: Path) -> None:
    lines = table(load_sweep(file), run(file)).splitlines()
    assert lines[0].split() == ["validation", "deviation", "learning_rate", "hidden"]
    assert lines[1].split()[2] == "0.02"
    assert any(line.endswith(" 8,4") for line in lines)


def test_what_was_trained_is_not_trained_again(file: Path) -> None:
    first = run(file, seeds=(0,))
    results = file.with_suffix(".jsonl")
    before = results.read_text()
    both = run(file)
    assert results.read_text().startswith(before)
    assert len(results.read_text().splitlines()) == 8
    best = {json.dumps(s.recipe.as_dict()): s.accuracies[0] for s in both}
    assert all(best[json.dumps(s.recipe.as_dict())] == s.accuracies[0] for s in first)


@pytest.mark.parametrize("change", ["labels", "maximum"])
def test_other_data_are_trained_on_again(file: Path, stripes: Dataset, change: str) -> None:
    run(file, seeds=(0,))
    if change == "labels":
        np.savez(file.parent / "stripes.npz", X=stripes.inputs, y=stripes.labels[::-1])
    else:
        np.savez(file.parent / "stripes.npz", X=stripes.inputs, y=stripes.labels, maximum=254)
    run(file, seeds=(0,))
    lines = file.with_suffix(".jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert len({json.dumps(json.loads(line)["data"]) for line in lines}) == 2


def test_data_that_are_not_there_are_an_error_though_all_was_trained(file: Path) -> None:
    run(file)
    (file.parent / "stripes.npz").unlink()
    with pytest.raises(DataError):
        run(file)


def test_a_few_of_a_great_many_combinations_are_drawn_at_once(file: Path) -> None:
    keys = ("learning_rate", "weight_decay", "dropout", "momentum")
    values = [round(0.001 * number, 3) for number in range(1, 900)]
    grid = "".join(f"{key} = {values}\n" for key in keys)
    begin = file.read_text().partition("[grid]")[0]
    file.write_text(f"trials = 3\n{begin}[grid]\n{grid}")
    assert len(set(load_sweep(file).recipes)) == 3
    file.write_text(f"{begin}[grid]\n{grid}")
    with pytest.raises(UsageError, match="expected at most 100,000 of 1e"):
        load_sweep(file)


def test_combinations_are_in_the_order_of_nested_loops(file: Path) -> None:
    recipes = load_sweep(file).recipes
    found = [(recipe.learning_rate, recipe.hidden) for recipe in recipes]
    assert found == list(itertools.product([1e-9, 0.02], [(4,), (8, 4)]))


def test_trials_draw_some_combinations_always_the_same(file: Path) -> None:
    file.write_text("trials = 3\n" + file.read_text())
    sweep = load_sweep(file)
    assert len(sweep.recipes) == 3
    assert load_sweep(file) == sweep


def test_a_training_that_diverges_comes_last(file: Path) -> None:
    file.write_text(file.read_text().replace("1e-9", "1e30") + 'optimizer = ["sgd"]\n')
    assert run(file)[-1].mean == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [0]", r"expected recipe, seeds .* and \[grid\]"),
        ("sedes = [0]\n[grid]\nepochs = [1]", "expected recipe, seeds"),
        ("seeds = [-1]\n[grid]\nepochs = [1]", "expected recipe, seeds"),
        ("trials = 0\n[grid]\nepochs = [1]", "expected recipe, seeds"),
        ("[grid]\nepochs = 1", "expected recipe, seeds"),
        ("[grid]\nepohcs = [1]", "did you mean 'epochs'"),
        ("[grid]\nepochs = [0]", "recipe key epochs: expected a whole number above 0"),
        ("grid", "sweep .*: Expected '='"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_sweep(file)


def test_a_file_of_other_results_is_not_added_to(file: Path) -> None:
    file.with_suffix(".jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="has no results of a sweep"):
        run(file)


def test_a_backend_that_is_not_installed_is_named(file: Path) -> None:
    places = DataLocations(file.parent / "stripes.npz", file.parent)
    with pytest.raises(UsageError, match="--backend ray needs the package ray"):
        run_sweep(load_sweep(file), places, file.with_suffix(".jsonl"), 1, "ray", None)


def test_the_command_publishes_the_best_on_request(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(file.parent / "stripes.npz")
    assert main(["sweep", str(file), "--data-dir", data, "--jobs", "1", "--publish"]) == 0
    assert "deviation" in capsys.readouterr().out
    store = Store(file.parent / "store", "mnist")
    assert store.aliases() == {CHAMPION: 1}
    assert store.manifest(1).recipe["learning_rate"] == 0.02


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "dask"])
def test_two_processes_come_to_the_same_scores_as_one(file: Path, backend: str) -> None:
    alone = [score.accuracies for score in run(file)]
    results = file.parent / "elsewhere.jsonl"
    program = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
    arguments = ["--data-dir", str(file.parent / "stripes.npz"), "--results", str(results)]
    command = [sys.executable, "-c", program, "sweep", str(file), "--jobs", "2", *arguments]
    done = subprocess.run(
        [*command, "--backend", backend],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = DataLocations(file.parent / "stripes.npz", file.parent)
    scores = run_sweep(load_sweep(file), places, results, 1, "local", None)
    assert [score.accuracies for score in scores] == alone
    assert len(results.read_text().splitlines()) == 8
