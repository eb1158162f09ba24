"""The notebook runs as it is, its stored output is its own, and the site shows it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "from_scratch.ipynb"
SECONDS = 180
MAX_BYTES = 500_000


def outputs(path: Path) -> list[list[str]]:
    """Return what kinds of output each cell of code has."""
    cells = json.loads(path.read_text())["cells"]
    return [
        [kind_of(output) for output in cell["outputs"]]
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def kind_of(output: dict[str, Any]) -> str:
    return str(output.get("name") or sorted(output["data"]))


@pytest.mark.examples
@pytest.mark.timeout(SECONDS + 30)
def test_the_notebook_runs_in_three_minutes_without_mnist(tmp_path: Path) -> None:
    copy = tmp_path / NOTEBOOK.name
    shutil.copy(NOTEBOOK, copy)
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MLPSERVE_")}
    program = [sys.executable, str(ROOT / "docs/tools/notebook.py"), str(copy)]

    done = subprocess.run(
        program, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
    )

    assert done.returncode == 0, done.stderr
    assert outputs(copy) == outputs(NOTEBOOK), "make notebook renews the stored output"


def test_the_stored_notebook_is_small_and_shows_no_warning() -> None:
    kinds = [kind for cell in outputs(NOTEBOOK) for kind in cell]
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert kinds.count("stderr") == 0
    assert sum("image/png" in kind for kind in kinds) > 10


@pytest.mark.examples
def test_the_site_shows_the_notebook_with_formulas_and_without_another_host(tmp_path: Path) -> None:
    program = [str(Path(sys.executable).with_name("mkdocs")), "build", "--quiet"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}

    subprocess.run([*program, "--site-dir", str(tmp_path)], cwd=ROOT, env=environment, check=True)

    page = (tmp_path / "from_scratch.html").read_text()
    pictures = re.findall(r'<img alt="png" src="([^"]+)"', page)
    assert page.count("<math") > 20
    assert not re.search(r"<p>[^<]*\$", page), "a formula that is not converted"
    assert len(pictures) > 10
    assert all((tmp_path / picture).is_file() for picture in pictures)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)', page)
