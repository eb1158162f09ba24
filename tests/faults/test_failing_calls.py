"""Commands whose system calls fail: one clear line, exit code 1, and a store as it was."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mlpserve_model import CHAMPION, Store
from tests.support.publishers import assert_whole
from tests.support.publishing import publish_to
from tests.support.volumes import Volume

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

PROGRAM = "import sys; from mlpserve_model.cli import main; sys.exit(main())"
# The broken twin: it takes what is not on the disk for durable.
WITHOUT_ERRORS = """
import os
fsync = os.fsync

def ignore_errors(descriptor):
    try:
        fsync(descriptor)
    except OSError:
        pass

os.fsync = ignore_errors
"""
READING = ("getdents64", "newfstatat", "read")
WRITING = ("mkdirat", "write", "fsync", "renameat", "flock", "unlinkat")
ERRORS = {"EIO": (*READING, *WRITING, "openat"), "ENOSPC": WRITING[:4], "EROFS": WRITING[:4]}
# A command has not done its work where one of these fails.
MATTERS = ("mkdirat", "write", "fsync", "renameat", "flock")
STEPS = [9, pytest.param(1, marks=pytest.mark.soak)]


class Call(NamedTuple):
    """The n-th call of this name in a process."""

    name: str
    n: int


class Outcome(NamedTuple):
    """What a command ended with."""

    code: int
    errors: str


class Commands:
    """Commands on the store of a folder, traced by strace."""

    code = PROGRAM

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._trace = store, folder / "trace"
        self._network = folder / "network.npz"
        rng = np.random.default_rng(0)
        np.savez(self._network, w1=rng.normal(size=(4, 3)).astype("<f4"), b1=np.zeros(3, "<f4"))

    def arguments(self, name: str) -> list[str]:
        """The command of this name: import, promote or prune."""
        more = {
            "import": [str(self._network), "--activations", "softmax", "--reason", "a test"],
            "promote": [str(self._store.versions()[-1]), "--reason", "a test"],
            "prune": ["--keep", "1"],
        }
        root = str(self._store.folder.parent)
        where = ["--store", root, "--model", self._store.model]
        return [sys.executable, "-c", self.code, name, *more[name], *where]

    def run(self, name: str, *options: str) -> Outcome:
        """Run a command with more options of strace."""
        watched = ["-f", "-y", "-e", f"trace={','.join((*READING, *WRITING, 'openat'))}"]
        command = ["strace", "-o", str(self._trace), *watched, *options, *self.arguments(name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return Outcome(done.returncode, done.stderr)

    def calls(self, name: str) -> list[Call]:
        """The calls of a command that concern the store, in their order."""
        assert self.run(name).code == 0
        counts, found = Counter[str](), list[Call]()
        for line in self._trace.read_text(errors="replace").splitlines():
            call = re.match(r"(?:\d+ +)?(\w+)\(", line)
            if call:
                counts[call[1]] += 1
                if str(self._store.folder.parent) in line:
                    found.append(Call(call[1], counts[call[1]]))
        return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Versions 1 to 3, of which 1 is the champion."""
    store = Store(tmp_path / "models", "tiny")
    for seed in range(3):
        publish_to(store, seed, promote=not seed)
    return store


@pytest.fixture
def commands(store: Store, tmp_path: Path) -> Commands:
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace")
    return Commands(store, tmp_path)


def _restore(store: Store) -> None:
    """Make version 1 the champion again, of at least three."""
    champion = store.resolve(CHAMPION)
    if champion != 1:
        store.move_alias(CHAMPION, 1, expected=champion, event="rollback", reason="a test")
    while len(store.versions()) < 3:
        publish_to(store, promote=False)


def _fail_each(
    name: str,
    step: int,
    store: Store,
    commands: Commands,
    errors: Mapping[str, tuple[str, ...]] = ERRORS,
) -> Counter[tuple[str, str]]:
    """Let every `step`-th call of a command fail; returns the errors with their messages."""
    calls, messages = commands.calls(name), Counter[tuple[str, str]]()
    _restore(store)
    for error, names in errors.items():
        for call in [call for call in calls if call.name in names][::step]:
            known = store.versions()
            outcome = commands.run(name, "-e", f"inject={call.name}:error={error}:when={call.n}")
            messages[error, outcome.errors.replace(str(store.folder.parent), "")] += 1
            _assert_clear(outcome, call, error)
            assert_whole(store, known if name == "import" and outcome.code else [])
            _restore(store)
    return messages


def _assert_clear(outcome: Outcome, call: Call, error: str) -> None:
    if outcome.code == 0:  # of no consequence, such as litter that stays
        assert call.name not in MATTERS, f"{call} failed with {error}, and the command with 0"
        assert outcome.errors == "", (call, error)
    else:
        assert outcome.code == 1, (call, error, outcome)
        assert re.fullmatch(r"mlpserve-models: [^\n]+\n", outcome.errors), (call, error, outcome)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ["import", "promote", "prune"])
def test_a_command_whose_call_fails_says_so_in_one_line_and_leaves_the_store_whole(
    name: str, step: int, store: Store, commands: Commands
) -> None:
    messages = _fail_each(name, step, store, commands)
    print(f"\n{name}: {messages.total()} calls failed")
    for (error, text), count in messages.most_common():
        print(f"  {count:4} {error}: {text.strip() or 'done all the same'}")
    assert {error for error, _ in messages} == set(ERRORS)


def test_a_command_that_ignores_what_fsync_says_is_caught(store: Store, commands: Commands) -> None:
    commands.code = WITHOUT_ERRORS + PROGRAM
    with pytest.raises(AssertionError, match="failed with EIO, and the command with 0"):
        _fail_each("promote", 1, store, commands, {"EIO": ("fsync",)})


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_volume_that_is_mounted_read_only_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    with Volume(kind, tmp_path) as volume:
        store = Store(volume.path / "models", "tiny")
        for seed in range(3):
            publish_to(store, seed, promote=not seed)
        volume.remount("ro")
        commands = Commands(store, tmp_path)
        for name in ("import", "promote", "prune"):
            done = subprocess.run(commands.arguments(name), capture_output=True, text=True)
            assert done.returncode == 1
            line = rf"mlpserve-models: cannot [^\n]*{store.folder}[^\n]*: Read-only file system\n"
            assert re.fullmatch(line, done.stderr)
            print(f"\n{kind}, {name}: {done.stderr.strip()}")
        assert store.versions() == [1, 2, 3]
        assert store.verify(store.resolve(CHAMPION)).version == 1
