"""The recipe for several models in Compose: its services exist, and their programs take it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlpserve_server.settings import read_settings
from mlpserve_trainer.cli import parser as trainer_parser

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def recipe() -> str:
    (found,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    return str(found)


@pytest.fixture
def services(recipe: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in ("MODEL", "DEFAULT_MODEL", "DATASET", "DATA_DIR"):
        monkeypatch.delenv(f"MLPSERVE_{name}", raising=False)
    found: dict[str, Any] = yaml.safe_load(recipe)["services"]
    return found


def test_the_server_takes_what_the_recipe_says(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services["server"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = read_settings([])
    assert (settings.model, settings.default_model) == (("*",), "mnist")


def test_a_schedule_of_its_own_takes_what_the_recipe_says(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = services["schedule-letters"]
    described = yaml.safe_load(COMPOSE.read_text())["services"]
    assert own["extends"] == {"file": COMPOSE.name, "service": "schedule"}
    assert set(own["environment"]) <= set(described["schedule"]["environment"])
    for name, value in own["environment"].items():
        monkeypatch.setenv(name, value)
    options = trainer_parser().parse_args([*described["schedule"]["command"], "--every", "1h"])
    assert (options.model, options.dataset) == ("letters", "csv")
    (mounted,) = own["volumes"]
    assert str(options.data_dir) == mounted.split(":")[1]


def test_compose_merges_the_recipe(recipe: str, tmp_path: Path) -> None:
    done = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], check=False)
    if not done or done.returncode:
        pytest.skip("Compose merges the files; without it they are only parsed")
    for file in (COMPOSE, ROOT / "Dockerfile"):
        shutil.copy(file, tmp_path)
    (tmp_path / "models.yml").write_text(recipe)
    command = ["docker", "compose", "-f", COMPOSE.name, "-f", "models.yml"]
    merged = subprocess.run(
        [*command, "--profile", "schedule", "config"], cwd=tmp_path, capture_output=True, text=True
    )
    assert merged.returncode == 0, merged.stderr
    services = yaml.safe_load(merged.stdout)["services"]
    assert services["server"]["environment"]["MLPSERVE_MODEL"] == "*"
    assert services["schedule"]["environment"]["MLPSERVE_MODEL"] != "letters"
    assert services["schedule-letters"]["environment"]["MLPSERVE_MODEL"] == "letters"
