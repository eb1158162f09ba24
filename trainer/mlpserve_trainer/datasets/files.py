"""What a place holds that data is read from, and how much of it fits into memory."""

import stat
from pathlib import Path

from mlpserve_model.process.memory import usable_memory
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import missing

__all__ = ["is_folder", "memory_limit"]

# The rows are held once as they were read, and about twice as they are split and joined.
SHARE_OF_MEMORY = 4


def memory_limit() -> int:
    """Return the bytes of rows that this machine or container can train on."""
    return usable_memory() // SHARE_OF_MEMORY


def is_folder(path: Path) -> bool:
    """Return True for a folder.

    Raises:
        DataError: nothing is there, or it cannot be looked at; `Path.is_dir` says no to both.

    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError as error:
        raise DataError(missing(path)) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
