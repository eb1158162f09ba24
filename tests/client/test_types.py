"""Type checkers see everything, and see through mistakes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = Path(__file__).with_name("user_code.py")
# Of a cache of their own: the types of NumPy alone take several seconds.
CACHE = Path(__file__).parents[2] / "build/mypy"
MYPY = ["mypy", "--strict", f"--cache-dir={CACHE}", "--config-file="]
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


FILES = sorted(Path(__file__).parent.rglob("*.py"))


def fixtures(tree: ast.Module) -> set[str]:
    """The names of the fixtures that a module defines."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if any("fixture" in ast.unparse(d) for d in f.decorator_list)}


def test_every_fixture_that_a_test_takes_has_a_type_that_says_something() -> None:
    trees = {path: ast.parse(path.read_text()) for path in FILES}
    names = set.union(*map(fixtures, trees.values())) | {"authority", "new_authority", "tmp_path"}
    untyped = [
        f"{path.name}:{function.lineno} {argument.arg}"
        for path, tree in trees.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for argument in function.args.args
        if argument.arg in names and "Any" in ast.unparse(argument.annotation or ast.Name("Any"))
    ]
    assert untyped == []
