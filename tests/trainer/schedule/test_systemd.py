import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlpserve_model import CHAMPION, Store

UNITS = Path(__file__).parents[3] / "deploy/systemd"
COMMAND = "/opt/mlpserve/bin/mlpserve-trainer"
PROGRAM = "import sys; from mlpserve_trainer.cli import main; sys.exit(main())"


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd is not installed")
    return found


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def test_systemd_finds_nothing_wrong_with_the_units(analyze: str, tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace(COMMAND, sys.executable)
        (tmp_path / unit.name).write_text(text)
    files = sorted(map(str, tmp_path.iterdir()))
    assert len(files) == 2
    result = subprocess.run([analyze, "verify", *files], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_timer_comes_every_night_in_a_zone_that_is_named(analyze: str) -> None:
    (when,) = values("mlpserve-train.timer", "OnCalendar")
    result = subprocess.run(
        [analyze, "calendar", "--base-time=2026-03-28 12:00 UTC", "--iterations=2", when],
        capture_output=True,
        text=True,
        env=os.environ | {"TZ": "Europe/Berlin"},
        check=True,
    )
    assert re.findall(r"2026-03-\d\d 03:00:00 UTC", result.stdout) == [
        *("2026-03-29 03:00:00 UTC", "2026-03-30 03:00:00 UTC")
    ]


def test_the_service_trains_and_the_second_time_finds_nothing_to_do(tmp_path: Path) -> None:
    (line,) = values("mlpserve-train.service", "ExecStart")
    command, *arguments = line.split()
    assert command == COMMAND
    settings = dict(pair.split("=", 1) for pair in values("mlpserve-train.service", "Environment"))
    here = {
        name: value.replace("/var/lib/mlpserve", str(tmp_path)) for name, value in settings.items()
    } | {"MLPSERVE_CACHE_DIR": str(tmp_path / "cache")}
    here["MLPSERVE_DATASET"] = here["MLPSERVE_DATASET"].replace("auto", "digits")
    (tmp_path / "corrections").mkdir()
    runs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments, "--batch-size", "16", "--epochs", "8"],
            env=os.environ | here,
            capture_output=True,
            text=True,
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert "nothing to train" in runs[1].stdout
    assert Store(tmp_path / "models", "mnist").aliases() == {CHAMPION: 1}
