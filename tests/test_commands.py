"""Every command can also be run as a module of its package."""

import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = {
    "mlpserve_client": "mlpserve-client",
    "mlpserve_model": "mlpserve-models",
    "mlpserve_server": "mlpserve-server",
    "mlpserve_trainer": "mlpserve-trainer",
}


@pytest.mark.parametrize(("package", "command"), COMMANDS.items())
def test_a_package_runs_as_its_command(package: str, command: str) -> None:
    run = [sys.executable, "-P", "-m", package, "--version"]
    ended = subprocess.run(run, capture_output=True, text=True, check=True)
    assert ended.stdout == f"{command} {version('mlpserve')}\n"
