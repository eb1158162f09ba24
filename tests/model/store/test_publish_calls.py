"""A writer killed before each of its file system calls: strace chooses the moment."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from mlpserve_model import CHAMPION, CorruptVersion, Manifest, Store
from tests.support.forging import Publish

CALLS = (
    *("mkdirat", "openat", "getdents64", "flock", "write", "fsync", "renameat", "unlinkat"),
    *("close", "newfstatat"),
)

# Publishes the weights of version 1 again; the two marks show in the trace.
PUBLISHER = """
import os, sys
import numpy as np
from mlpserve_model import Store
store = Store(sys.argv[1], "tiny")
model = store.load(1)
os.access("/begin-of-publishing", os.F_OK)
store.publish(model.manifest, model.manifest.gate, model.weights, np.ones((2, 4), np.float32))
os.access("/end-of-publishing", os.F_OK)
"""

# Promotes version 2, and removes every version without an alias but the newest.
PROMOTER = """
import os, sys
from mlpserve_model import CHAMPION, Store
store = Store(sys.argv[1], "tiny")
os.access("/begin-of-publishing", os.F_OK)
store.move_alias(CHAMPION, 2, expected=1, event="promote", reason="a test")
os.access("/end-of-publishing", os.F_OK)
"""
PRUNER = """
import os, sys
from mlpserve_model import Store
store = Store(sys.argv[1], "tiny")
os.access("/begin-of-publishing", os.F_OK)
store.prune(1)
os.access("/end-of-publishing", os.F_OK)
"""

# The broken twin: files grow under their final names.
WITHOUT_TEMPORARY_NAMES = """
from mlpserve_model.store.atomic_files import Directory

def write_in_place(self, name, data):
    with (self.path / name).open("wb", buffering=0) as file:
        file.write(data[:50])
        file.write(data[50:])

Directory.write = write_in_place
"""


class Call(NamedTuple):
    """The n-th call of this name in a process."""

    name: str
    n: int


Trace = Callable[..., list[str]]


@pytest.fixture
def trace(store: Store, published: Manifest, tmp_path: Path) -> Trace:
    """Runs a publisher under strace with more options; gives the lines of the trace."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace")

    def trace(code: str, *options: str) -> list[str]:
        output = tmp_path / "trace"
        watched = ["-e", f"trace={','.join(CALLS)},access", *options]
        python = [sys.executable, "-B", "-c", code, str(store.folder.parent)]
        subprocess.run([strace, "-o", str(output), *watched, *python], capture_output=True)
        return output.read_text(errors="replace").splitlines()

    return trace


def _calls_of_publishing(lines: list[str]) -> list[Call]:
    counts, found, publishing = Counter[str](), list[Call](), False
    for line in lines:
        name = line.split("(")[0]
        counts[name] += 1
        if name == "access" and "-of-publishing" in line:
            publishing = "begin" in line
        elif publishing and name in CALLS:
            found.append(Call(name, counts[name]))
    return found


def _kill_before_each(
    trace: Trace, code: str, calls: Iterable[Call], check: Callable[[], None]
) -> None:
    for call in calls:
        lines = trace(code, "-e", f"inject={call.name}:signal=SIGKILL:when={call.n}")
        assert lines[-1] == "+++ killed by SIGKILL +++", call
        check()


@pytest.fixture
def assert_whole(store: Store, publish: Publish) -> Callable[[], None]:
    """Whatever is visible verifies, and the next publish works and sweeps."""

    def assert_whole() -> None:
        before = store.versions()
        store.verify(before[-1])
        assert store.resolve(CHAMPION) == 1
        known = {*before, *(event["version"] for event in store.history())}
        assert store.verify(publish().version).version == max(known) + 1
        folders = [p.name for p in store.folder.iterdir() if p.is_dir()]
        assert sorted(folders) == sorted(map(str, store.versions()))
        assert list(store.folder.rglob("*.tmp")) == []
        recorded = {event["version"] for event in store.history() if event["event"] == "publish"}
        assert set(store.versions()) <= recorded

    return assert_whole


@pytest.fixture
def champion(store: Store, published: Manifest) -> None:
    store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="a test")


@pytest.mark.faults
def test_killed_before_every_tenth_call_a_publisher_leaves_the_store_whole(
    trace: Trace, champion: None, assert_whole: Callable[[], None]
) -> None:
    calls = _calls_of_publishing(trace(PUBLISHER))
    assert len(calls) > 30
    _kill_before_each(trace, PUBLISHER, calls[::10], assert_whole)


@pytest.mark.faults
def test_killed_before_every_eighth_call_a_promotion_is_made_or_not(
    trace: Trace, champion: None, store: Store, publish: Publish
) -> None:
    publish()
    calls = _calls_of_publishing(trace(PROMOTER))
    assert store.resolve(CHAMPION) == 2
    assert {"fsync", "renameat"} <= {call.name for call in calls}

    def assert_made_or_not() -> None:
        moved = store.resolve(CHAMPION)
        assert moved in (1, 2)
        promoted = [e["version"] for e in store.history() if e["event"] == "promote"]
        assert moved in promoted  # an alias never moves without a record
        assert store.verify(moved)
        if moved == 2:
            store.move_alias(CHAMPION, 1, expected=2, event="rollback", reason="a test")

    store.move_alias(CHAMPION, 1, expected=2, event="rollback", reason="a test")
    _kill_before_each(trace, PROMOTER, calls[::8], assert_made_or_not)


@pytest.mark.faults
def test_killed_before_every_twelfth_call_a_prune_leaves_whole_versions_or_none(
    trace: Trace, champion: None, store: Store, publish: Publish
) -> None:
    for _ in range(3):
        publish()
    calls = _calls_of_publishing(trace(PRUNER))
    assert {"renameat", "unlinkat"} <= {call.name for call in calls}
    assert store.versions() == [1, 4]

    def assert_whole() -> None:
        assert {1, store.versions()[-1]} <= set(store.versions())
        for version in store.versions():
            store.verify(version)
        pruned = {e["version"] for e in store.history() if e["event"] == "prune"}
        published = {e["version"] for e in store.history() if e["event"] == "publish"}
        assert published - pruned <= set(store.versions())
        newest = publish().version  # and finishes what was begun
        assert not list(store.folder.glob(".*.removed"))
        store.prune(1)
        assert store.versions() == [1, newest]
        two_to_prune()

    def two_to_prune() -> None:
        for _ in range(2):
            publish()

    two_to_prune()
    _kill_before_each(trace, PRUNER, calls[::12], assert_whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_before_any_call_a_publisher_leaves_the_store_whole(
    trace: Trace, champion: None, assert_whole: Callable[[], None]
) -> None:
    calls = _calls_of_publishing(trace(PUBLISHER))
    _kill_before_each(trace, PUBLISHER, calls, assert_whole)
    print(f"\nkilled before {len(calls)} calls: {dict(Counter(call.name for call in calls))}")


@pytest.mark.faults
def test_without_temporary_names_the_kill_between_two_writes_is_caught(
    trace: Trace, champion: None, assert_whole: Callable[[], None]
) -> None:
    code = WITHOUT_TEMPORARY_NAMES + PUBLISHER
    last_write = [c for c in _calls_of_publishing(trace(code)) if c.name == "write"][-1:]
    with pytest.raises(CorruptVersion, match=r"manifest\.json is not JSON"):
        _kill_before_each(trace, code, last_write, assert_whole)
