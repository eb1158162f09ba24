"""Class names are chosen by others: none costs a version."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer import Rules, TrainSettings, load_recipe, train

PROGRAM = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
HOSTILE = (
    "US$_A$",
    "[click](https://evil.example) <img src=x onerror=alert(1)>",
    "\x1b]0;title\x07\x1b[31mred\x00\u202egnp",
    "```\n# heading | `code` *bold* __under__ https://evil.example www.evil.example",
    "\u65e5\u672c\u8a9e",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Small images whose classes have hostile names."""
    rng = np.random.default_rng(1)
    labels = np.arange(200) % len(HOSTILE)
    inputs = rng.integers(0, 255, (200, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", X=inputs, y=np.array(HOSTILE)[labels])
    return tmp_path / "data.npz"


@pytest.fixture
def settings(tmp_path: Path, data: Path) -> TrainSettings:
    recipe = load_recipe("quick", dataset="npz", hidden=(8,), epochs=1)
    rules = Rules(min_accuracy=0)
    return TrainSettings(store=tmp_path / "store", recipe=recipe, data_dir=data, rules=rules)


def document(settings: TrainSettings, name: str) -> str:
    return (Store(settings.store, settings.model).path(1) / name).read_text("utf-8")


def run(data: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Train in a process of its own."""
    command = ["train", "--dataset", "npz", "--data-dir", str(data), "--epochs", "1"]
    command += ["--hidden", "8", "--min-accuracy", "0", "--store", str(data.parent / "store")]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_name_of_a_class_reaches_the_terminal_as_it_is(data: Path) -> None:
    result = run(data)
    assert result.returncode == 0, result.stderr
    assert all(line.isprintable() for line in (result.stdout + result.stderr).splitlines())


def test_a_program_gets_json_whatever_the_names_are(data: Path) -> None:
    assert json.loads(run(data, "--json").stdout)["version"] == 1


def test_the_card_has_no_markup_of_a_class(settings: TrainSettings) -> None:
    train(settings)
    card = document(settings, "model_card.md")
    assert not re.search(r"(?m)^# heading", card)
    # Outside of the indented table, where nothing is markup:
    prose = "\n".join(line for line in card.splitlines() if not line.startswith("    "))
    for markup in ("<img", "[click]", "https://evil", "www.evil", " `code`", " *bold*"):
        assert markup not in prose
    assert all(line.isprintable() for line in card.splitlines())


def test_the_page_shows_names_as_they_are_but_for_what_is_not_text(settings: TrainSettings) -> None:
    train(settings)
    page = document(settings, "report.html")
    assert "<img src=x" not in page
    assert "US$_A$" in page
    assert "\u65e5\u672c\u8a9e" in page
    assert not {"\x1b", "\x00", "\x07", "\u202e"} & set(page)


def test_a_great_many_classes_make_a_short_report(tmp_path: Path, settings: TrainSettings) -> None:
    labels = np.repeat(np.arange(1000), 3)
    inputs = np.random.default_rng(1).integers(0, 255, (3000, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", X=inputs, y=np.array([f"class {i}" * 30 for i in labels]))
    outcome = train(replace(settings, data_dir=tmp_path / "many.npz"))
    assert len(document(settings, "report.html")) < 2**19
    assert len(document(settings, "model_card.md")) < 2**16
    assert len(outcome.report.splitlines()) < 100
    assert "of 1,000 classes with the lowest F1" in outcome.report
