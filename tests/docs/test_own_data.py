"""The examples of own data in docs/training.md train versions that are good enough."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlpserve_model import Store

pytestmark = pytest.mark.examples

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_of_own_data_is_promoted(tmp_path: Path) -> None:
    code = CODE[0]
    (command,) = re.findall(r"^mlpserve (train --model mine .*)$", TEXT, re.MULTILINE)

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    train = [sys.executable, "-m", "mlpserve_cli", *command.split()]
    said = subprocess.run(train, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert "version 1: PROMOTED" in said
    assert (tmp_path / "models" / "mine" / "1" / "report.html").is_file()


def test_the_example_of_a_table_becomes_a_model_of_real_numbers(tmp_path: Path) -> None:
    (code,) = (code for code in CODE if "iris.csv" in code)
    (command,) = re.findall(r"^mlpserve (train --model iris .*)$", TEXT, re.MULTILINE)

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    train = [sys.executable, "-m", "mlpserve_cli", *command.split()]
    subprocess.run(train, cwd=tmp_path, check=True, capture_output=True)

    manifest = Store(tmp_path / "models", "iris").manifest(1)
    assert manifest.gate.verdict == "PROMOTED"
    assert manifest.signature.input_kind == "real"
    assert manifest.signature.class_names == ("setosa", "versicolor", "virginica")


def test_the_example_of_an_estimator_is_promoted(tmp_path: Path) -> None:
    (code,) = (code for code in CODE if "MlpClassifier" in code)

    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout

    assert said.endswith("PROMOTED\n")
