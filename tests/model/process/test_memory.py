from pathlib import Path

import pytest

from mlpserve_model.process import cgroups
from mlpserve_model.process.memory import usable_memory

MIB = 2**20


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "OWN_GROUPS", tmp_path / "own")


def limit(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_smallest_limit_of_the_enclosing_groups_holds(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/outer/inner\n")
    limit(tmp_path / "outer" / "memory.max", f"{64 * MIB}\n")
    limit(tmp_path / "outer" / "inner" / "memory.max", f"{256 * MIB}\n")
    assert usable_memory() == 64 * MIB


def test_a_limit_of_version_1_holds(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("4:memory:/docker/4f2a\n3:cpu:/\n")
    limit(tmp_path / "memory" / "memory.limit_in_bytes", f"{64 * MIB}\n")
    assert usable_memory() == 64 * MIB


@pytest.mark.parametrize("text", ["max\n", "", "9223372036854771712\n"])
def test_without_a_limit_the_machine_has_what_it_has(tmp_path: Path, text: str) -> None:
    unlimited = usable_memory()
    (tmp_path / "own").write_text("0::/group\n")
    limit(tmp_path / "group" / "memory.max", text)
    assert usable_memory() == unlimited > 64 * MIB
