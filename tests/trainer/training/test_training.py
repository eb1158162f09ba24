import json
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_iris

from mlpserve_model import (
    CHALLENGER,
    CHAMPION,
    InputValues,
    Signature,
    Store,
)
from mlpserve_model.store.evidence.reference import read_reference
from mlpserve_trainer import (
    DataError,
    Outcome,
    Rules,
    TrainingDiverged,
    TrainSettings,
    UsageError,
    load_recipe,
    train,
)
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.fitting.progress import Watch, log_epochs, show_bar
from mlpserve_trainer.release.publish import golden_rows


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    """A training run that takes a tenth of a second and gets everything right."""
    names = np.array(stripes.class_names)
    np.savez(tmp_path / "stripes.npz", X=stripes.inputs, y=names[stripes.labels])
    knobs = {"hidden": (8,), "epochs": 10, "batch_size": 8, "learning_rate": 0.01}
    return TrainSettings(
        store=tmp_path / "store",
        recipe=load_recipe("quick", dataset="npz", **knobs),
        data_dir=tmp_path / "stripes.npz",
    )


def worse(settings: TrainSettings) -> TrainSettings:
    """Return settings whose network has learnt next to nothing, and that have no floor."""
    recipe = settings.recipe.override({"epochs": 1, "learning_rate": 1e-9})
    return replace(settings, recipe=recipe, rules=Rules(min_accuracy=0))


def champion(settings: TrainSettings) -> int | None:
    return Store(settings.store, settings.model).aliases().get(CHAMPION)


def events(settings: TrainSettings) -> Sequence[tuple[str, int]]:
    history = Store(settings.store, settings.model).history()
    return [(event["event"], event["version"]) for event in history]


def test_the_first_version_is_published_and_promoted(settings: TrainSettings) -> None:
    outcome = train(settings)
    assert (outcome.version, outcome.verdict) == (1, "PROMOTED")
    assert outcome.reasons[-1] == "there is no champion yet"
    assert outcome.metrics["accuracy"] == 1.0
    assert outcome.seconds > outcome.metrics["training_seconds"] > 0
    assert champion(settings) == 1
    assert events(settings) == [("publish", 1), ("promote", 1)]


def test_a_challenger_waits_beside_the_champion(settings: TrainSettings) -> None:
    settings = replace(settings, alias=CHALLENGER)
    assert not train(settings).is_challenger  # the first of all
    assert train(replace(settings, seed=1)).is_challenger
    assert train(replace(settings, seed=2)).verdict == "PROMOTED"
    train(replace(worse(settings), rules=Rules(min_accuracy=1)))
    aliases = Store(settings.store, settings.model).aliases()
    assert aliases == {CHAMPION: 1, CHALLENGER: 3}
    moves = [e for e in Store(settings.store, "mnist").history() if e["event"] == "promote"]
    assert [(e["alias"], e["previous"]) for e in moves] == [
        (CHAMPION, None), (CHALLENGER, None), (CHALLENGER, 2),
    ]  # fmt: skip


def test_the_version_has_a_reference_of_its_holdout(settings: TrainSettings) -> None:
    train(settings)
    store = Store(settings.store, "mnist")
    reference = read_reference(store, store.verify(1))
    assert reference is not None
    assert reference.confusion is not None
    assert reference.rows == sum(map(sum, reference.confusion)) == 60
    assert [row[i] for i, row in enumerate(reference.confusion)] == list(reference.predicted)


def test_the_manifest_says_what_the_version_was_made_of(settings: TrainSettings) -> None:
    outcome = train(replace(settings, seed=7))
    manifest = Store(settings.store, "mnist").verify(1)
    assert manifest.digest == outcome.digest
    assert manifest.metrics == outcome.metrics
    assert manifest.network.layer_sizes == (16, 8, 3)
    assert manifest.signature == Signature((4, 4), 255, ("a", "b", "c"))
    assert manifest.dataset.name == "npz"
    assert manifest.dataset.split == "stratified 80/20, seed 20"
    assert manifest.seed == 7
    assert manifest.recipe == json.loads(json.dumps(settings.recipe.as_dict()))
    assert manifest.libraries["numpy"] == np.__version__
    assert manifest.gate.verdict == "PROMOTED"


@pytest.mark.parametrize(
    ("inputs", "values"),
    [
        (lambda x: x, InputValues("raw", 0, 219)),
        (lambda x: x / 255, InputValues("scaled", 0, 219 / 255)),
        (lambda x: x > 110, InputValues("binary", 0, 1)),
        (lambda x: (x > 110) * np.uint8(255), InputValues("binary", 0, 255)),
        (lambda x: (x > 110) * np.uint8(1), InputValues("raw", 0, 1)),
    ],
    ids=["raw", "scaled", "booleans", "black and white", "as 0 and 1 of 255"],
)
def test_the_manifest_says_what_values_were_trained_on(
    settings: TrainSettings,
    stripes: Dataset,
    inputs: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    values: InputValues,
) -> None:
    assert settings.data_dir is not None
    np.savez(settings.data_dir, X=inputs(stripes.inputs), y=stripes.labels)
    train(replace(settings, rules=Rules(min_accuracy=0)))
    found = Store(settings.store, "mnist").manifest(1).input_values
    assert found is not None
    assert found.kind == values.kind
    assert (found.low, found.high) == pytest.approx((values.low, values.high))


def test_the_card_lies_beside_the_weights(settings: TrainSettings) -> None:
    train(settings)
    card = (Store(settings.store, "mnist").path(1) / "model_card.md").read_text("utf-8")
    assert card.startswith("# mnist: 16-8-3 on npz\n")
    assert "## Verdict: PROMOTED" in card
    assert "| learning_rate | 0.01 |" in card
    assert "precision" in card
    assert "with a temperature of" in card
    assert "There was no champion to compare with." in card


def test_the_card_says_what_the_champion_and_this_version_got_right(
    settings: TrainSettings,
) -> None:
    train(worse(settings))
    accuracy = train(settings).metrics["accuracy"]
    card = (Store(settings.store, "mnist").path(2) / "model_card.md").read_text("utf-8")
    counts = dict(re.findall(r"\| (both right|only this version right) \| (\d+) \|", card))
    rows = int(re.findall(r"mean .* (\d+)\n", card)[0])
    assert sum(map(int, counts.values())) == round(accuracy * rows)


def test_the_card_lists_the_mistakes_by_class(settings: TrainSettings) -> None:
    accuracy = train(worse(settings)).metrics["accuracy"]
    card = (Store(settings.store, "mnist").path(1) / "model_card.md").read_text("utf-8")
    mistakes = sum(map(int, re.findall(r"\* (\d+) of [abc] for [abc]\n", card)))
    rows = int(re.findall(r"mean .* (\d+)\n", card)[0])
    assert 0 < mistakes == rows - round(accuracy * rows)


def test_the_same_seed_gives_the_same_digest(settings: TrainSettings) -> None:
    assert train(settings).digest == train(settings).digest


def test_another_seed_gives_another_digest(settings: TrainSettings) -> None:
    assert train(settings).digest != train(replace(settings, seed=1)).digest


def test_a_better_version_becomes_champion(settings: TrainSettings) -> None:
    train(worse(settings))
    outcome = train(settings)
    assert (outcome.version, outcome.verdict) == (2, "PROMOTED")
    assert "not worse than champion 1" in " ".join(outcome.reasons)
    assert champion(settings) == 2


def test_a_worse_version_is_published_but_not_promoted(settings: TrainSettings) -> None:
    train(settings)
    outcome = train(worse(settings))
    assert (outcome.version, outcome.verdict) == (2, "REJECTED")
    assert outcome.reasons[0].startswith("failed: worse than champion 1 (1.0000)")
    assert champion(settings) == 1
    assert events(settings)[2:] == [("publish", 2), ("reject", 2)]


def test_a_first_version_below_the_floor_is_rejected(settings: TrainSettings) -> None:
    outcome = train(replace(worse(settings), rules=Rules(min_accuracy=0.9)))
    assert outcome.verdict == "REJECTED"
    assert "below the floor of 0.9000" in outcome.reasons[0]
    assert champion(settings) is None


def test_a_worse_version_can_be_forced_with_a_reason(settings: TrainSettings) -> None:
    train(settings)
    outcome = train(replace(worse(settings), rules=Rules(force_reason="a drill")))
    assert (outcome.version, outcome.verdict) == (2, "FORCED")
    assert outcome.reasons[0] == "forced: a drill"
    assert champion(settings) == 2


def test_a_champion_on_other_inputs_is_not_replaced(settings: TrainSettings) -> None:
    train(settings)
    other = replace(settings, recipe=load_recipe("vanilla"), data_dir=None)
    with pytest.raises(UsageError) as refusal:
        train(other)
    assert "shape 4×4 became 8×8; maximum 255 became 16; 3 classes" in str(refusal.value)
    assert Store(settings.store, "mnist").versions() == [1]
    assert champion(settings) == 1


def test_a_champion_on_other_inputs_is_replaced_when_that_is_allowed(
    settings: TrainSettings,
) -> None:
    train(settings)
    rules = Rules(allow_signature_change=True, min_accuracy=0)
    recipe = load_recipe("quick", dataset="digits", hidden=(8,), epochs=1)
    other = replace(settings, recipe=recipe, rules=rules, data_dir=None)
    outcome = train(other)
    assert outcome.verdict == "PROMOTED"
    assert champion(settings) == 2


def test_a_damaged_champion_is_reported_and_replaced(settings: TrainSettings) -> None:
    train(settings)
    (Store(settings.store, "mnist").path(1) / "model.npz").write_bytes(b"damaged")
    outcome = train(settings)
    assert outcome.verdict == "PROMOTED"
    assert "champion 1 is damaged, not compared with" in outcome.reasons[-1]
    assert champion(settings) == 2


def test_a_damaged_champion_does_not_lower_the_floor(settings: TrainSettings) -> None:
    train(settings)
    (Store(settings.store, "mnist").path(1) / "manifest.json").unlink()
    outcome = train(replace(worse(settings), rules=Rules(min_accuracy=0.9)))
    assert outcome.verdict == "REJECTED"
    assert champion(settings) == 1


def test_trainers_at_the_same_time_publish_a_version_each(settings: TrainSettings) -> None:
    outcomes: list[Outcome] = []

    def run(seed: int) -> None:
        outcomes.append(train(replace(settings, seed=seed)))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.version for outcome in outcomes) == [1, 2, 3, 4]
    assert champion(settings) == max(o.version for o in outcomes if o.verdict == "PROMOTED")
    promotions = [version for event, version in events(settings) if event == "promote"]
    assert promotions == sorted(promotions)


def test_a_diverging_run_publishes_nothing(settings: TrainSettings) -> None:
    recipe = settings.recipe.override({"optimizer": "sgd", "learning_rate": 1e30})
    with pytest.raises(TrainingDiverged):
        train(replace(settings, recipe=recipe))
    assert Store(settings.store, "mnist").versions() == []


def test_bad_data_publishes_nothing(settings: TrainSettings, tmp_path: Path) -> None:
    np.savez(tmp_path / "stripes.npz", X=np.full((9, 4), np.nan), y=np.arange(9))
    with pytest.raises(DataError):
        train(settings)
    assert Store(settings.store, "mnist").versions() == []


def test_a_store_that_cannot_be_written_says_so_before_the_training(
    settings: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        train(replace(settings, store=tmp_path / "file"))


def test_the_self_test_holds_rows_of_every_class(settings: TrainSettings) -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 2])
    rows = golden_rows(labels)
    assert np.bincount(labels[rows]).tolist() == [15, 15, 2]
    train(settings)
    assert Store(settings.store, "mnist").manifest(1).golden_rows == 32


def test_many_classes_make_a_longer_self_test() -> None:
    assert len(golden_rows(np.repeat(np.arange(50), 3))) == 50


@pytest.mark.parametrize("watch", [log_epochs, show_bar])
def test_every_way_of_watching_gives_the_same_network(
    settings: TrainSettings, watch: Watch
) -> None:
    assert train(settings, watch).digest == train(settings).digest


def test_a_terminal_gets_a_bar_with_loss_accuracy_and_time_left(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings, show_bar)
    captured = capsys.readouterr()
    assert "10/10" in captured.err
    assert "loss 0." in captured.err
    assert "validation accuracy 1.0000" in captured.err
    assert "0:00:00" in captured.err
    assert captured.out == ""


def test_vanilla_learns_its_training_data(tmp_path: Path) -> None:
    outcome = train(TrainSettings(store=tmp_path, recipe=load_recipe("vanilla")))
    print(outcome.report)
    assert outcome.metrics["training_accuracy"] >= 0.99
    assert outcome.verdict == "PROMOTED"


def test_quick_reaches_97_percent_of_the_digits(tmp_path: Path) -> None:
    recipe = load_recipe("quick", dataset="digits")
    assert train(TrainSettings(store=tmp_path, recipe=recipe)).metrics["accuracy"] >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
def test_so_it_does_whatever_the_seed(tmp_path: Path, seed: int) -> None:
    settings = TrainSettings(
        store=tmp_path, recipe=load_recipe("quick", dataset="digits"), seed=seed
    )
    assert train(settings).metrics["accuracy"] >= 0.97


def test_quick_reaches_95_percent_of_the_irises(tmp_path: Path) -> None:
    flowers = load_iris()
    np.savez(tmp_path / "iris.npz", X=(flowers.data / 10).astype(np.float32), y=flowers.target)
    settings = TrainSettings(
        store=tmp_path / "store",
        recipe=load_recipe("quick", dataset="npz"),
        data_dir=tmp_path / "iris.npz",
    )
    assert train(settings).metrics["accuracy"] >= 0.95


def test_no_training_waits_for_large_packages_to_be_imported(
    settings: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_bytes(pickle.dumps(settings))
    program = (
        "import pickle, sys; from dataclasses import replace; from pathlib import Path\n"
        "from mlpserve_trainer import train\n"
        "settings = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "train(settings); train(replace(settings, seed=settings.seed + 1))  # beside a champion\n"
        "print({'pandas', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "settings")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert Store(settings.store, settings.model).versions() == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_quick_reaches_98_percent_of_mnist_whatever_the_seed(
    tmp_path: Path, mnist_dir: Path, seed: int
) -> None:
    recipe = load_recipe("quick", dataset="mnist")
    settings = TrainSettings(store=tmp_path, recipe=recipe, data_dir=mnist_dir, seed=seed)
    metrics = train(settings).metrics
    assert metrics["accuracy"] >= 0.98
    assert metrics["calibration_error"] <= 0.01
