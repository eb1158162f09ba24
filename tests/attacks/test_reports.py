"""Class names and the environment are chosen by others: neither costs a version."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Store
from mlpserve_trainer import Rules, TrainSettings, load_recipe, train
from mlpserve_trainer.report.figures import LEFT_OUT

PROGRAM = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"
DRAWS = """
import numpy as np
from mlpserve_trainer.report.figures import confusion_matrix, picture
print(confusion_matrix(np.eye(3, dtype=np.int64), ("a", "US$_A$", "c"))[:4], picture(np.eye(4))[:5])
"""
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


def run(
    data: Path, environment: Mapping[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Train in a process of its own, with these variables."""
    command = ["train", "--dataset", "npz", "--data-dir", str(data), "--epochs", "1"]
    command += ["--hidden", "8", "--min-accuracy", "0", "--store", str(data.parent / "store")]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, *arguments],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )


def assert_draws(environment: Mapping[str, str]) -> None:
    """Draw a figure and a picture in a process of its own, with these variables."""
    drawn = subprocess.run(
        [sys.executable, "-c", DRAWS], env=os.environ | dict(environment), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (drawn.stdout, drawn.stderr, drawn.returncode) == ("<svg data:\n", "", 0)


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ("module://matplotlib_inline.backend_inline", b"text.usetex: true\n"),
        ("no such backend", b"svg.fonttype: \xff\n"),
        ("tkagg", b"backend: none\nfont.size: x\n"),
    ],
)
def test_an_inherited_backend_and_a_settings_file_change_nothing(
    tmp_path: Path, backend: str, text: bytes
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(text)
    assert_draws({"MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})


def test_what_cannot_be_drawn_is_left_out_with_a_line_in_the_log(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken/matplotlib").mkdir(parents=True)
    (tmp_path / "broken/matplotlib/__init__.py").write_text("raise RuntimeError('no fonts')")
    result = run(data, {"PYTHONPATH": str(tmp_path / "broken")})
    assert result.returncode == 0, result.stderr
    assert "a figure was left out" in result.stderr
    assert "no fonts" in result.stderr
    assert LEFT_OUT in (tmp_path / "store/mnist/1/report.html").read_text("utf-8")


def test_no_name_of_a_class_reaches_the_terminal_as_it_is(data: Path) -> None:
    result = run(data, {})
    assert result.returncode == 0, result.stderr
    assert all(line.isprintable() for line in (result.stdout + result.stderr).splitlines())


def test_a_program_gets_json_whatever_the_names_are(data: Path) -> None:
    assert json.loads(run(data, {}, "--json").stdout)["version"] == 1


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
