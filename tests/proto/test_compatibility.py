"""The contract stays compatible with every contract that was committed before."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def _breaks(contract: Path, before: Path) -> str:
    command = [str(BUF), "breaking", str(contract), "--against", str(before)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode in (0, 100), done.stderr  # 100: buf ran, and found something
    return done.stdout


@pytest.mark.skipif(
    not (ROOT / ".git").exists() or not shutil.which("git"),
    reason="earlier contracts are in git, and this is no clone",
)
def test_the_contract_breaks_none_that_was_committed_before(tmp_path: Path) -> None:
    commits = _git("log", "--format=%H", "--", "proto/*.proto").decode().split()
    assert commits
    for commit in commits:
        (tmp_path / commit).mkdir()
        unpack = ["tar", "-x", "-C", str(tmp_path / commit)]
        subprocess.run(unpack, input=_git("archive", commit, "proto"), check=True)
        assert _breaks(ROOT / "proto", tmp_path / commit / "proto") == ""


def test_a_field_whose_number_moved_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    changed = tmp_path / "proto/mlpserve/v1/model.proto"
    changed.write_text(changed.read_text().replace("string digest = 3;", "string digest = 4;"))

    assert "ModelRef" in _breaks(tmp_path / "proto", ROOT / "proto")
