"""No test changes what the server of another test runs, in the same process beside it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PATCHING = TESTS / "support/patching.py"
# What servers run; a trainer or a client has no thread when its test has ended.
SHARED = re.compile(r"mlpserve_(server|model)\b")
METHOD_BY_PATH = re.compile(r"\bmlpserve_(server|model)\.[\w.]*\b[A-Z]\w*[a-z]\w*\.\w+$")


def patched_classes(source: str) -> Iterator[int]:
    """Yield the lines that replace a method in a class that servers share."""
    tree = ast.parse(source)
    classes = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and SHARED.match(node.module or "")
        for name in node.names
        if re.match(r"[A-Z]\w*[a-z]", name.name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("setattr", "delattr") or not node.args:
            continue
        target = node.args[0]
        by_name = isinstance(target, ast.Name) and target.id in classes
        by_path = isinstance(target, ast.Constant) and METHOD_BY_PATH.search(str(target.value))
        if by_name or by_path:
            yield node.lineno


def test_methods_are_replaced_in_objects_of_the_test_not_in_classes() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        if path != PATCHING
        for line in patched_classes(path.read_text())
    ]
    assert not found, f"tests/support/patching.py has what to use instead: {found}"


@pytest.mark.parametrize(
    ("patch", "is_found"),
    [
        ('monkeypatch.setattr(StoredModel, "predict", slow)', True),
        ('patched.delattr(StoredModel, "predict")', True),
        ('patch.setattr("mlpserve_server.lifecycle.manager.ModelManager.poll", fail)', True),
        ('monkeypatch.setattr(stubs.manager, "poll", fail)', False),
        ('monkeypatch.setattr("mlpserve_server.lifecycle.refusals._RETRY_SECONDS", 0)', False),
        ('monkeypatch.setattr(MAX, "x", 0)', False),
    ],
)
def test_a_patch_of_a_class_is_found(patch: str, is_found: bool) -> None:
    source = f"from mlpserve_model import MAX, StoredModel\n{patch}\n"
    assert list(patched_classes(source)) == [2] * is_found
