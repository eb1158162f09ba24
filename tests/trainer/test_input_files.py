"""Text that the user names is read as what it is, or refused with the reason."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlpserve_trainer import DataError, UsageError, load_recipe
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import DataLocations, load
from mlpserve_trainer.datasets.idx import write_idx
from mlpserve_trainer.training.sweep import load_sweep

Use = Callable[[Path], object]


def class_names(path: Path) -> object:
    """Use a file as the class names of a folder of IDX files."""
    folder = path.parent / "idx"
    folder.mkdir()
    path.rename(folder / "class-names.txt")
    write_idx(folder / "images-idx3-ubyte", np.arange(96, dtype=np.uint8).reshape(6, 4, 4))
    write_idx(folder / "labels-idx1-ubyte", np.arange(6, dtype=np.uint8) % 2)
    return load("idx", DataLocations(folder, path.parent)).class_names


def recipe(path: Path) -> object:
    return load_recipe(str(path)).hidden


def sweep(path: Path) -> object:
    return load_sweep(path).seeds


USES = pytest.mark.parametrize("use", [class_names, recipe, sweep])
SOUND: dict[Use, tuple[str, object]] = {
    class_names: ("a\nb\n", ("a", "b")),
    recipe: ("hidden = [3]\n", (3,)),
    sweep: ("seeds = [3]\n[grid]\nepochs = [1]\n", (3,)),
}


@USES
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_not_part_of_the_text(use: Use, encoding: str, tmp_path: Path) -> None:
    text, found = SOUND[use]
    (tmp_path / "x.toml").write_text(text, encoding)
    assert use(tmp_path / "x.toml") == found


@USES
def test_what_is_not_utf_8_is_refused(use: Use, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes("Ärger\n".encode("latin-1"))
    with pytest.raises((DataError, UsageError), match="expected text in UTF-8"):
        use(tmp_path / "x.toml")


@USES
def test_a_fifo_is_refused_instead_of_waited_for(use: Use, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises((DataError, UsageError), match="is not a regular file but a FIFO"):
        use(tmp_path / "x.toml")


@pytest.mark.parametrize("use", [recipe, sweep])
@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 200_000,
        "hidden" + ".a" * 5_000 + " = 1",
        "[grid]\nhidden = [{" + "a." * 20_000 + "a = 1}]",
        "epochs = " + "9" * 5000,
        "recipe = 5\n[grid]\nepochs = [1]",
    ],
)
def test_values_without_sense_are_refused(use: Use, text: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        use(tmp_path / "x.toml")
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("data", [b"\xff", b"[" * 200_000, b"[]", b'{"recipe": 1}'])
def test_other_files_are_not_taken_as_results_of_a_sweep(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.toml").write_text('recipe = "quick"\n[grid]\nepochs = [1]\n')
    (tmp_path / "x.jsonl").write_bytes(data)
    assert main(["sweep", str(tmp_path / "x.toml")]) == 2
    assert "has no results of a sweep" in capsys.readouterr().err


def test_a_long_label_takes_its_own_memory_alone(tmp_path: Path) -> None:
    # 80 KB; as an array of strings of equal length 8 GB.
    (tmp_path / "x.csv").write_text("0.5,a\n" * 20_000 + f"1,{'b' * 100_000}\n")
    code = (
        "import sys; from pathlib import Path; from mlpserve_trainer.datasets import *;"
        "place = Path(sys.argv[1]); print(len(load('csv', DataLocations(place, place)).inputs))"
    )
    limit = 2 << 30
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path / "x.csv")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert ended.stdout == "20001\n", ended.stderr
