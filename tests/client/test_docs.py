"""The documents about the client name everything public, and their examples run."""

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
from mlpserve_client import testing
from mlpserve_client.testing import ModelServer
from tests.support.client import Pixels

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = "client.md"


def blocks(document: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)
    assert found, document
    return found


@pytest.fixture
def folder(
    tmp_path: Path, server: ModelServer, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the examples read."""
    np.save(tmp_path / "digits.npy", pixels)
    Image.fromarray(pixels[0]).save(tmp_path / "seven.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPSERVE_TARGET", server.target)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [f"mlpserve_client.{name}" for name in mlpserve_client.__all__]
    + [f"mlpserve_client.testing.{name}" for name in testing.__all__],
)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert f"\n::: {name}\n" in (DOCS / "reference" / "python.md").read_text()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("document", [GUIDE, "calls.md"])
def test_the_python_examples_run_in_order(document: str, server: ModelServer) -> None:
    names: dict[str, Any] = {}

    for block in blocks(document, "python"):
        exec(block.replace("localhost:50051", server.target), names)


@pytest.mark.parametrize(
    "command",
    [line.removeprefix("$ ") for block in blocks(GUIDE, "console") for line in block.splitlines()],
)
def test_the_commands_run(folder: Path, command: str) -> None:
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, timeout=60)

    assert done.returncode == 0
    assert done.stdout
    assert not done.stderr
