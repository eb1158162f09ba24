import os
from pathlib import Path

import pytest

from mlpserve_model.process import cgroups
from mlpserve_model.process.cpus import usable_cores

V2, V1 = "0::{}\n", "9:name=systemd:/\n3:cpu,cpuacct:{}\n2:cpuset:/\n0::/\n"
SYSTEMD, DOCKER = "/system.slice/server.service", "/docker/4f2a"


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of eight cores, whose cgroups are files below `tmp_path`."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "OWN_GROUPS", tmp_path / "own")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2), ("150000 100000\n", 1), ("50000 100000\n", 1),
        ("1600000 100000\n", 8), ("max 100000\n", 8), ("", 8), ("200000 0", 8), ("two cores", 8),
    ],
)  # fmt: skip
@pytest.mark.parametrize("group", ["/", SYSTEMD])
def test_a_quota_of_cgroup_v2_limits_the_cores(
    tmp_path: Path, group: str, text: str, cores: int
) -> None:
    write(tmp_path / "own", V2.format(group))
    write(tmp_path / group.strip("/") / "cpu.max", text)
    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 8), ("50000", 1)])
@pytest.mark.parametrize("group", ["/", DOCKER])
def test_a_quota_of_cgroup_v1_limits_the_cores(
    tmp_path: Path, group: str, quota: str, cores: int
) -> None:
    write(tmp_path / "own", V1.format(group))
    folder = tmp_path / "cpu" / group.strip("/")
    write(folder / "cpu.cfs_quota_us", f"{quota}\n")
    write(folder / "cpu.cfs_period_us", "100000\n")
    assert usable_cores() == cores


def test_a_quota_of_an_outer_group_holds_for_inner_ones(tmp_path: Path) -> None:
    write(tmp_path / "own", V2.format(SYSTEMD))
    write(tmp_path / "system.slice/cpu.max", "200000 100000\n")
    write(tmp_path / "system.slice/server.service/cpu.max", "400000 100000\n")
    assert usable_cores() == 2


def test_a_container_finds_its_quota_at_the_root_though_the_path_is_the_hosts(
    tmp_path: Path,
) -> None:
    write(tmp_path / "own", V2.format(DOCKER))
    write(tmp_path / "cpu.max", "200000 100000\n")
    assert usable_cores() == 2


def test_affinity_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert usable_cores() == 2


def test_without_cgroups_all_cores_are_usable() -> None:
    assert usable_cores() == 8
