"""The built wheel, as users get it."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("model", "server", "trainer", "client", "cli", "web")
PACKAGES = {"mlpserve", *(f"mlpserve_{part}" for part in PARTS)}
SOURCES = [ROOT / folder for folder in ("proto", *PARTS)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = target.iterdir()
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def _metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [n for n in archive.namelist() if n.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


def test_the_wheel_holds_these_packages_and_nothing_else(names: list[str]) -> None:
    folders = {name.split("/")[0] for name in names}
    assert {f for f in folders if not f.endswith(".dist-info")} == PACKAGES
    assert len(folders) == len(PACKAGES) + 1


def test_every_package_is_typed(names: list[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_every_file_of_a_package_is_in_the_wheel(names: list[str]) -> None:
    packages = [source / name for source in SOURCES for name in PACKAGES]
    files = {
        path.relative_to(package.parent).as_posix()
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"mlpserve_web/static/index.html", "mlpserve_model/__init__.py"} <= files
    assert files <= set(names)


def test_images_are_built_from_every_package() -> None:
    # A build without one makes a wheel without it, and does not fail.
    admitted = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{source.name}" for source in SOURCES} <= set(admitted)


def test_the_wheel_holds_the_contract_and_its_stubs(names: list[str]) -> None:
    contracts = [p.relative_to(ROOT / "proto") for p in (ROOT / "proto").rglob("*.proto")]
    assert contracts
    for stem in (path.with_suffix("").as_posix() for path in contracts):
        assert {f"{stem}{end}" for end in (".proto", "_pb2.py", "_pb2.pyi")} <= set(names)


def test_the_wheel_holds_no_leftovers(names: list[str]) -> None:
    assert not [n for n in names if "__pycache__" in n or n.endswith((".pyc", ".orig", ".tmp"))]


def test_the_wheel_is_pure_python_and_installs_the_commands(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    entries = _metadata(wheel, "entry_points.txt")
    for command in ("trainer", "server", "models", "client", "web"):
        assert f"mlpserve-{command} = mlpserve_" in entries
    assert "mlpserve = mlpserve_cli.main:main" in entries


def test_without_extras_only_the_clients_libraries_are_required(wheel: Path) -> None:
    required = Parser().parsestr(_metadata(wheel, "METADATA")).get_all("Requires-Dist", [])
    plain = {line.split(">")[0].split("<")[0] for line in required if "extra ==" not in line}
    assert plain == {"grpcio", "numpy", "protobuf"}
