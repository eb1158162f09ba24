"""A volume that fails: the system's calls at one path end with an error of its own."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

__all__ = ["fail_at", "flipped"]

_CALLS = ("open", "stat", "lstat", "unlink", "rename", "mkdir", "rmdir", "scandir")


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Return bytes, at least one, with one bit flipped."""
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def fail_at(monkeypatch: pytest.MonkeyPatch, path: Path, error: int, *calls: str) -> None:
    """Let these calls of `os` fail at and below a path, as on a damaged disk or without a right.

    Root, who meets no missing right, meets this too. Without `calls`, all that look at the path.
    """
    for call in calls or _CALLS:
        monkeypatch.setattr(os, call, _failing(getattr(os, call), path, error))


def _failing(call: Any, path: Path, error: int) -> Any:
    def failing(name: Any = ".", *args: Any, **kwargs: Any) -> Any:
        place = _place(name, kwargs.get("dir_fd", kwargs.get("src_dir_fd")))
        if path in (place, *place.parents):
            raise OSError(error, os.strerror(error), str(path))
        return call(name, *args, **kwargs)

    return failing


def _place(name: Any, folder: int | None) -> Path:
    if isinstance(name, int):
        return Path(f"/proc/self/fd/{name}").readlink()
    above = Path() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
    return above / Path(name)
