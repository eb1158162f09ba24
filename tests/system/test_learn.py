"""What `make demo-learn` runs: the whole loop of learning from callers, on real servers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "learn.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_callers_make_the_next_version_better_and_a_liar_changes_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, str(SCRIPT)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=880)
    assert run.returncode == 0, run.stdout + run.stderr
    for words in (
        "drift alarm: p ",
        "a 9 is taken for a 3",
        "mallory reports 250 fours as nines",
        "corrections do no harm",
        "minutes of each stage",
        ": promote",
        "right, by version 2",
        "computed again: identical",
        "changed nothing, bit for bit",
    ):
        assert words in run.stdout
    assert not list(tmp_path.glob("mlpserve-demo-*")), "it leaves nothing behind"
