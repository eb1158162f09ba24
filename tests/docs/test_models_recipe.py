"""The files that add a model to the stack: Docker merges them, and the programs take them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpserve_server.settings import read_settings
from mlpserve_trainer.cli import parser as trainer_parser

ROOT = Path(__file__).parents[2]
COMPOSE, MODELS = ROOT / "docker-compose.yml", ROOT / "deploy/compose/models.yml"
STACK, STACK_MODELS = ROOT / "deploy/swarm/stack.yml", ROOT / "deploy/swarm/models.yml"
OWN = "schedule-digits"


def plain(environment: dict[str, str]) -> dict[str, str]:
    """The variables without what they take from the environment of the caller."""
    return {name: value for name, value in environment.items() if "${" not in value}


def services(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["services"]
    return found


def merged(*command: str) -> dict[str, Any]:
    """What Docker makes of files, none of whose variables is set."""
    done = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], check=False)
    if not done or done.returncode:
        pytest.skip("Docker merges the files; without it they are only parsed")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLPSERVE_")}
    shown = subprocess.run(
        ["docker", *command], cwd=ROOT, env=inherited, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = yaml.safe_load(shown.stdout)["services"]
    return found


@pytest.mark.parametrize("path", [MODELS, STACK_MODELS], ids=str)
def test_the_server_takes_what_the_file_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in services(path)["server"]["environment"].items():
        monkeypatch.setenv(name, value.replace("${MLPSERVE_MODEL:-mnist}", "mnist"))
    settings = read_settings([])
    assert (settings.model, settings.default_model) == (("mnist", "*"), "mnist")


@pytest.mark.parametrize(("path", "base"), [(MODELS, COMPOSE), (STACK_MODELS, STACK)], ids=str)
def test_a_schedule_of_its_own_takes_what_the_file_says(
    path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, first = services(path)[OWN], services(base)["schedule"]
    assert set(own["environment"]) <= set(first["environment"])
    for name, value in plain(own["environment"]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLPSERVE_CRON", "0 4 * * *")
    options = trainer_parser().parse_args(own["command"])
    assert (options.model, options.dataset, options.data_dir) == ("digits", "digits", None)


def test_a_swarm_runs_a_further_schedule_as_the_first() -> None:
    own, first = services(STACK_MODELS)[OWN], services(STACK)["schedule"]
    for service in (own, first):
        del service["environment"]
    assert own == first


def test_compose_merges_the_files() -> None:
    names = (COMPOSE.name, str(MODELS.relative_to(ROOT)))
    files = [word for name in names for word in ("-f", name)]
    found = merged("compose", *files, "--profile", "schedule", "config")
    assert found["server"]["environment"]["MLPSERVE_MODEL"] == "mnist,*"
    assert found["server"]["environment"]["MLPSERVE_DEFAULT_MODEL"] == "mnist"
    assert found["schedule"]["environment"]["MLPSERVE_MODEL"] != "digits"
    assert found[OWN]["environment"]["MLPSERVE_MODEL"] == "digits"
    assert found[OWN]["image"] == found["schedule"]["image"]
    assert {volume["target"] for volume in found[OWN]["volumes"]} >= {"/models", "/cache"}


def test_a_swarm_merges_the_files() -> None:
    found = merged("stack", "config", "-c", str(STACK), "-c", str(STACK_MODELS))
    assert found["server"]["environment"]["MLPSERVE_MODEL"] == "mnist,*"
    assert found["server"]["environment"]["MLPSERVE_DEFAULT_MODEL"] == "mnist"
    assert found["server"]["deploy"]["replicas"] == 3
    assert found[OWN]["environment"]["MLPSERVE_MODEL"] == "digits"
