"""Folders of the user who runs a program."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder for what programs can fetch again: XDG's, or one below the home folder."""
    with suppress(RuntimeError):  # a container's user without a home
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "mlpserve")
    return Path(tempfile.gettempdir(), f"mlpserve-{os.getuid()}")
