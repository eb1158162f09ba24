"""What every test may rely on."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.authority import Authority, NewAuthority

# Hypothesis would fail a test for the seconds that an example takes, which on a busy machine are no
# property of the code.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start, also where CI runs in the background.

    A shell starts background jobs with SIGINT ignored, and what ignores it hands that on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collectstart() -> None:
    """Collect tests without garbage collections: they find none, and took a second a process."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, and make full collections rare.

    One of all that was collected takes half a second, and came amid calls of servers in this
    process, which then took their model for a slow one and refused calls. The server's program
    freezes what it has imported instead; then Hypothesis does not find its own objects.
    """
    gc.enable()
    gc.set_threshold(*gc.get_threshold()[:2], 1000)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_ours() -> Iterator[None]:
    """Hide the settings of who runs the tests from the programs that these start."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLPSERVE_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system write what tests wrote when it likes, unless they are about broken disks.

    A small version that is published waits a dozen times for the disk, and most tests publish one.
    Processes that tests start sync as they always do.
    """
    if not request.node.get_closest_marker("faults"):
        monkeypatch.setattr(os, "fsync", os.fstat)  # which also refuses what is no open file


@pytest.fixture(scope="session")
def without_matplotlib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the search path, where matplotlib cannot be imported."""
    folder = tmp_path_factory.mktemp("without_matplotlib")
    (folder / "matplotlib.py").write_text("raise ImportError('this test looks at no figure')\n")
    return folder


@pytest.fixture
def no_figures(without_matplotlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings here, and in processes started here, leave the figures of reports out.

    They do so wherever figures cannot be drawn, and those take more than half of a small training.
    What is drawn is looked at in tests/trainer/report and tests/attacks/test_reports.py.
    """
    paths = [str(without_matplotlib), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="session")
def new_authority(tmp_path_factory: pytest.TempPathFactory) -> NewAuthority:
    """Make a certificate authority of its own."""
    return lambda: Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def authority(new_authority: NewAuthority) -> Authority:
    """The authority that servers and callers trust."""
    return new_authority()
