"""The power is cut while versions are published: what was acknowledged is there and whole."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import CHAMPION, Store
from tests.support.publishers import PUBLISHER, assert_whole, start_publisher
from tests.support.volumes import Volume

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

QUICK, FULL = 8, 50
LONGEST = 0.6  # seconds that a publisher has before a cut, for up to forty versions

# The broken twin: nothing is made durable.
WITHOUT_FSYNC = "import os\nos.fsync = lambda descriptor: None\n"


@pytest.fixture(params=["ext4", "xfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    with Volume(request.param, tmp_path) as volume:
        yield volume


@pytest.fixture
def store(volume: Volume) -> Store:
    return Store(volume.path / "models", "tiny")


def _published_until_a_cut(code: str, volume: Volume, rng: np.random.Generator) -> list[int]:
    """The versions acknowledged by a publisher before the power was cut; it is on again."""
    with start_publisher(code, volume.path / "models", 10**6, int(rng.integers(2**31))) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, LONGEST))
        # A power cut stops the processor too. Otherwise a publisher could acknowledge what it lost:
        # an fsync of xfs that the cut overtakes may return without an error.
        child.send_signal(signal.SIGSTOP)
        volume.cut_power()
        child.kill()
        output, _ = child.communicate(timeout=60)
    volume.remount()
    return [int(line) for line in output.split()]


def _assert_nothing_acknowledged_is_lost(
    code: str, cuts: int, volume: Volume, store: Store
) -> tuple[int, int]:
    """Cut the power so often; returns how much was acknowledged, and how many cuts met some."""
    acknowledged, met, rng = list[int](), 0, np.random.default_rng(18)
    for _ in range(cuts):
        ours = _published_until_a_cut(code, volume, rng)
        acknowledged += ours
        met += bool(ours)
        assert_whole(store, acknowledged)
        # A version is acknowledged after the one before it was promoted.
        assert len(ours) < 2 or store.resolve(CHAMPION) >= ours[-2]
    return len(acknowledged), met


@pytest.mark.parametrize("cuts", [QUICK, pytest.param(FULL, marks=pytest.mark.soak)])
def test_after_a_power_cut_every_acknowledged_version_is_whole(
    cuts: int, volume: Volume, store: Store
) -> None:
    count, met = _assert_nothing_acknowledged_is_lost(PUBLISHER, cuts, volume, store)
    for version in store.versions():
        store.verify(version)
    print(f"\n{volume.kind}: {cuts} power cuts, {count} versions acknowledged, none lost")
    assert met > cuts / 2


def test_without_fsync_a_power_cut_loses_acknowledged_versions(
    volume: Volume, store: Store
) -> None:
    with pytest.raises(AssertionError) as caught:
        _assert_nothing_acknowledged_is_lost(WITHOUT_FSYNC + PUBLISHER, QUICK, volume, store)
    print(f"\n{volume.kind}, without fsync: {str(caught.value).splitlines()[0]}")
