"""File systems in a file of their own, whose power can be cut."""

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Volume"]

# _IOR('X', 125, __u32) of the kernel's headers, which ext4 and xfs know: from this instant nothing
# more reaches the disk. The flag says that the journal in memory is lost too.
_GOING_DOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_SIZES = {"ext4": 64, "xfs": 320}  # mebibytes; xfs makes none below 300
_MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q")}


class Volume:
    """A mounted file system of this kind, in a file below `folder`; a context manager.

    Skips the test where file systems cannot be made or mounted.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.path = kind, folder / "volume"
        self._image = folder / f"{kind}.image"
        if shutil.which(_MAKE[kind][0]) is None:
            pytest.skip(f"{_MAKE[kind][0]} is not installed")
        with self._image.open("wb") as file:
            file.truncate(_SIZES[kind] * 2**20)
        subprocess.run([*_MAKE[kind], str(self._image)], check=True, capture_output=True)
        self.path.mkdir()

    def __enter__(self) -> "Volume":
        try:
            self.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"mounting a file system is not allowed here: {error}")
        return self

    def __exit__(self, *_: Any) -> None:
        self.unmount()

    def mount(self, options: str = "rw") -> None:
        """Mount it, which replays its journal."""
        subprocess.run(
            ["mount", "-t", self.kind, "-o", f"loop,{options}", str(self._image), str(self.path)],
            check=True,
            capture_output=True,
        )

    def unmount(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.path)], check=True)

    def cut_power(self) -> None:
        """Lose everything that is not on the disk yet; every later call of the volume fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _GOING_DOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def remount(self, options: str = "rw") -> None:
        """Mount it again, as after a power cut."""
        self.unmount()
        self.mount(options)
