"""Type checkers see everything, and see through mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = Path(__file__).with_name("user_code.py")
MYPY = ["mypy", "--strict", "--no-incremental", "--config-file="]
CHECKERS = {"mypy": MYPY, "pyright": ["pyright", "--pythonpath", sys.executable]}
MISTAKE = """
from mlpserve_client import Client
wrong: str = Client().predict([0]).label
"""


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_checker_finds_the_mistake_in_bad_code_and_nothing_in_good_code(
    checker: str, tmp_path: Path
) -> None:
    (tmp_path / "good.py").write_text(USER_CODE.read_text())
    (tmp_path / "bad.py").write_text(MISTAKE)

    command = [sys.executable, "-m", *CHECKERS[checker], "good.py", "bad.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    (found,) = [line for line in done.stdout.splitlines() if " error: " in line]
    assert "bad.py:3" in found
    assert '"int"' in found
