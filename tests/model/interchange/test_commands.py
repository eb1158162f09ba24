"""mlpserve-models import and export as a person uses them."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Store
from tests.model.conftest import Command
from tests.support.forging import Publish


@pytest.fixture
def models(models: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs mlpserve-models on the store, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return models


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.npz"
    rng = np.random.default_rng(0)
    np.savez(path, w1=rng.normal(size=(4, 3)), b1=np.zeros(3))
    return path


def test_an_unjudged_network_needs_a_reason_and_is_not_served(
    models: Command, network: Path, store: Store
) -> None:
    words = (str(network), "--activations", "softmax", "--class-names", "ash,birch,cedar")
    run = models("import", *words)
    assert run.code == 2
    assert "give --holdout DATA, or --reason TEXT" in run.err
    run = models("import", *words, "--reason", "the lab says so", "--input-shape", "2,2")
    assert (run.code, run.err) == (0, "")
    assert "version 1 of tiny: 4 -> 3, softmax" in run.out
    (command,) = re.findall(r"FORCED, and not served; .*:\n  mlpserve models (.*)\n", run.out)
    manifest = store.verify(1)
    assert manifest.gate.reasons == ("forced: the lab says so", "imported without a holdout")
    assert manifest.signature.class_names == ("ash", "birch", "cedar")
    assert manifest.signature.input_shape == (2, 2)
    assert manifest.signature.input_kind == "real"
    assert manifest.extra["imported"]["file"] == "theirs.npz"
    assert store.aliases() == {}
    assert shlex.split(command)[:4] == ["promote", "1", "--reason", "TEXT"]
    assert models(*shlex.split(command)).code == 0


def test_what_an_import_prints_for_scripts(models: Command, network: Path, store: Store) -> None:
    words = ("--activations", "identity", "--reason", "x", "--input-kind", "pixels")
    run = models("import", str(network), *words, "--input-maximum", "16", "--json")
    assert json.loads(run.out)["version"] == 1
    assert store.manifest(1).signature.input_maximum == 16
    run = models("import", str(network), *words)
    assert "--output-activation softmax makes probabilities" in run.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--class-names", "a,b"], "2 class names for 3 classes"),
        (["--class-names", "a,b,b"], "expected a different one"),
        (["--input-shape", "5"], "give the shape of one with --input-shape"),
        (["--output-activation", "sigmoid"], "ends in softmax already"),
    ],
)
def test_what_does_not_fit_the_network(
    flags: list[str], words: str, models: Command, network: Path, store: Store
) -> None:
    run = models("import", str(network), "--activations", "softmax", "--reason", "x", *flags)
    assert run.code == 1
    assert words in run.err
    assert store.versions() == []


@pytest.mark.parametrize(
    "flags", [["--activations", "swish"], ["--input-shape", "2x2"], ["--input-maximum", "256"]]
)
def test_wrong_usage(flags: list[str], models: Command, network: Path) -> None:
    assert models("import", str(network), "--reason", "x", *flags).code == 2


def test_an_export_never_replaces_a_file_by_accident(
    models: Command, publish: Publish, store: Store, tmp_path: Path
) -> None:
    publish()
    store.move_alias("champion", 1, expected=None, event="promote", reason="a test")
    assert models("export", "champion", "--format", "npz").out.endswith("tiny-1.npz\n")
    run = models("export", "1", "--format", "npz")
    assert run.code == 1
    assert "tiny-1.npz exists: --force replaces it" in run.err
    assert models("export", "1", "--format", "npz", "--force", "--json").code == 0
    (tmp_path / "link.h").symlink_to("nowhere")
    assert models("export", "1", "--format", "c", "--output", "link.h").code == 1
    run = models("export", "1", "--format", "c", "--output", "missing/tiny.h")
    assert "cannot be written: No such file or directory" in run.err
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["link.h", "tiny-1.npz"]
    assert models("export", "9", "--format", "c").code == 1


def test_an_export_replaces_regular_files_alone(
    models: Command, publish: Publish, tmp_path: Path
) -> None:
    """As root, `--output /dev/null --force` made a file of the device, for all programs."""
    publish()
    os.mkfifo(tmp_path / "fifo.h")
    (tmp_path / "target.h").write_text("theirs")
    (tmp_path / "link.h").symlink_to("target.h")
    (tmp_path / "dangling.h").symlink_to("nowhere")
    (tmp_path / "folder.h").mkdir()
    before = sorted((path.name, path.lstat().st_mode) for path in tmp_path.glob("*.h"))
    for name, _ in before:
        if name != "target.h":
            run = models("export", "1", "--format", "c", "--output", name, "--force")
            assert (run.code, "is not a regular file" in run.err) == (1, True)
    assert sorted((path.name, path.lstat().st_mode) for path in tmp_path.glob("*.h")) == before
    assert (tmp_path / "target.h").read_text() == "theirs"


def test_what_is_exported_is_imported_with_one_flag(
    models: Command, publish: Publish, store: Store
) -> None:
    publish()
    for kind in ("onnx", "safetensors", "npz"):
        assert models("export", "1", "--format", kind, "--output", f"tiny.{kind}").code == 0
        run = models("import", f"tiny.{kind}", "--reason", "back again")
        assert "pixels, 2x2; classes: ash, birch, cedar" in run.out
    origin = store.manifest(2).extra["imported"]
    assert (origin["model"], origin["version"]) == ("tiny", "1")
    assert origin["check"].startswith("onnxruntime: largest difference ")


@pytest.mark.parametrize(
    "words", [["import", "x.onnx", "--reason", "x"], ["export", "1", "--format", "onnx"]]
)
def test_without_the_extra_onnx_says_which_one_to_install(
    words: list[str], publish: Publish, store: Store, tmp_path: Path
) -> None:
    publish()
    (tmp_path / "x.onnx").write_bytes(b"x")
    code = (
        "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None\n"
        f"from mlpserve_model.cli import main; sys.exit(main({words} + sys.argv[1:]))"
    )
    where = ["--store", str(store.folder.parent), "--model", "tiny"]
    run = subprocess.run(
        [sys.executable, "-c", code, *where], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 1
    assert "ONNX files need the package onnx" in run.stderr
    assert "pip install '.[onnx]'" in run.stderr


def test_the_other_formats_need_no_package(publish: Publish, store: Store, tmp_path: Path) -> None:
    publish()
    code = (
        "import sys; from mlpserve_model.cli import main\n"
        "for name in ('onnx', 'onnxruntime', 'safetensors', 'skops', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "where = sys.argv[1:]\n"
        "for kind in ('safetensors', 'npz', 'c'):\n"
        "    assert main(['export', '1', '--format', kind, '--output', 'x.' + kind, *where]) == 0\n"
        "for kind in ('safetensors', 'npz'):\n"
        "    assert main(['import', 'x.' + kind, '--reason', 'x', *where]) == 0\n"
    )
    where = ["--store", str(store.folder.parent), "--model", "tiny"]
    subprocess.run([sys.executable, "-c", code, *where], check=True, cwd=tmp_path)
    assert store.versions() == [1, 2, 3]
