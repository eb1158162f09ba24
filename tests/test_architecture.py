"""Folders, files, classes and functions stay as small as a reader can hold at once."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "server" / "mlpserve_server"
TRAINER = ROOT / "trainer" / "mlpserve_trainer"
MODEL = ROOT / "model" / "mlpserve_model"
PACKAGES = [SERVER, TRAINER, MODEL, *(ROOT / p / f"mlpserve_{p}" for p in ("client", "web", "cli"))]
# scikit-learn wants a parameter of the constructor for each option of a training.
ESTIMATOR = TRAINER / "estimator" / "classifier.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(node: ast.ClassDef | Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def nodes(folder: Path) -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


@pytest.mark.parametrize(("folder", "most"), [(SERVER, 15), (TRAINER, 18), (MODEL, 9)])
def test_a_package_is_seen_at_once_in_a_listing(folder: Path, most: int) -> None:
    entries = [entry.name for entry in folder.iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= most, sorted(entries)


@pytest.mark.parametrize(
    ("folders", "most"),
    [
        ([*PACKAGES, ROOT / "benchmarks", ROOT / "docs", ROOT / "examples"], 300),
        ([ROOT / "tests"], 400),
    ],
)
def test_a_file_is_short(folders: list[Path], most: int) -> None:
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert files
    long = {path: n for path in files if (n := len(path.read_text().splitlines())) > most}
    assert not long


def test_a_class_of_the_server_is_short() -> None:
    classes = [(path, n) for path, n in nodes(SERVER) if isinstance(n, ast.ClassDef)]
    assert classes
    assert not [(path, n.name, lines_of(n)) for path, n in classes if lines_of(n) > 150]


def test_a_function_that_fits_networks_is_short() -> None:
    fitting = [(path, n) for path, n in nodes(TRAINER / "fitting") if isinstance(n, Function)]
    assert fitting
    assert not [(path, n.name, lines_of(n)) for path, n in fitting if lines_of(n) > 25]


@pytest.mark.parametrize("folder", [SERVER, TRAINER])
def test_a_constructor_has_few_parameters(folder: Path) -> None:
    found = [
        (path, node, len(node.args.args) + len(node.args.kwonlyargs) - 1)
        for path, node in nodes(folder)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__" and path != ESTIMATOR
    ]
    assert found
    assert not [(path, node.lineno, count) for path, node, count in found if count > 5]


def test_what_answers_predictions_is_typed() -> None:
    names = [SERVER / "dataplane" / name for name in ("predictions.py", "inference.py", "query.py")]
    assert not [path for path in names if re.search(r"\bAny\b", path.read_text())]


@pytest.mark.parametrize("package", [SERVER, TRAINER, MODEL])
def test_every_room_is_on_the_map(package: Path) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [f.parent.name for f in package.rglob("__init__.py") if f.parent != package]
    assert rooms
    assert not [room for room in rooms if not re.search(rf"\b{room}\b", text)]


@pytest.mark.parametrize("package", ["server", "trainer", "model"])
def test_the_map_has_the_order_of_imports_that_is_checked(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (checked,) = (
        contract["layers"]
        for contract in contracts["contracts"]
        if contract["name"] == f"The rooms of the {package}"
    )
    text = (ROOT / "docs" / "architecture.md").read_text()
    (shown,) = re.findall(rf"^{package}: +(\S.*(?:\n +> .*)*)", text, re.MULTILINE)
    assert " > ".join(checked).removeprefix("(__main__) > ") == " ".join(shown.split())


def test_git_ignores_no_file_that_others_need() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    folders = ["benchmarks", "deploy", "docs", "examples", "proto", "tests"]
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", *folders]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [path for path in ignored.splitlines() if "__pycache__/" not in path]
