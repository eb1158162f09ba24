"""Trainings that draw no figures: those take more than half of a small training."""

import os
import sys
from pathlib import Path

import pytest

__all__ = ["draw_no_figures"]

BROKEN = "raise ImportError('this test looks at no figure')\n"


def draw_no_figures(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let trainings of this process, and of those it starts, find no matplotlib.

    They leave the figures of a report out, as everywhere where they cannot be drawn. What is drawn
    is looked at in tests/trainer/report and tests/attacks/test_reports.py.

    Args:
        patch: undoes it.
        folder: an empty one, for the search path of the processes.

    """
    (folder / "matplotlib.py").write_text(BROKEN)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    patch.setitem(sys.modules, "matplotlib", None)
