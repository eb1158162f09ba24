"""docs/api.md names everything, says what the docstrings say, and its examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mlpserve_client
from mlpserve_client.testing import ModelServer

RENDER = Path(__file__).with_name("render_api.py")
DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
TEXT = DOCUMENT.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(
    tmp_path: Path, server: ModelServer, pixels: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the examples read."""
    np.save(tmp_path / "digits.npy", pixels)
    Image.fromarray(pixels[0]).save(tmp_path / "seven.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPSERVE_TARGET", server.target)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


def test_the_reference_is_what_the_docstrings_say() -> None:
    code = "import render_api; print(end=render_api.rendered())"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=RENDER.parent, capture_output=True, text=True, check=True
    )

    assert done.stdout == TEXT, f"run {RENDER.name}"


@pytest.mark.parametrize("name", [*mlpserve_client.__all__, "serve", "ModelServer"])
def test_every_public_name_is_documented(name: str) -> None:
    assert re.search(rf"^### `{name}\b", TEXT, re.MULTILINE)


@pytest.mark.usefixtures("folder")
def test_the_python_examples_run_in_order(server: ModelServer) -> None:
    names: dict[str, Any] = {}

    assert len(blocks("python")) > 5
    for block in blocks("python"):
        exec(block.replace("localhost:50051", server.target), names)


@pytest.mark.parametrize(
    "command",
    [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()],
)
def test_the_commands_run(folder: Path, command: str) -> None:
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, timeout=60)

    assert done.returncode == 0
    assert done.stdout
    assert not done.stderr
