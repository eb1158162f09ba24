"""The example of own data in docs/training.md trains a version that is good enough."""

import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_the_example_of_own_data_is_promoted(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
    (command,) = re.findall(r"^mlpserve (train --model mine .*)$", TEXT, re.MULTILINE)

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    train = [sys.executable, "-m", "mlpserve_cli", *command.split()]
    said = subprocess.run(train, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert "version 1: PROMOTED" in said
    assert (tmp_path / "models" / "mine" / "1" / "report.html").is_file()
