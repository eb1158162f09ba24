"""Data sets that people bring along: an .npz file with arrays X and y."""

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.dataset import Inputs
from mlpserve_trainer.errors import DataError

__all__ = ["NotAnArchive", "find_npz", "read_npz"]

PIXEL_MAXIMUM = 255
LARGEST = 2**34  # bytes of the arrays; far above what is trained on here

Arrays = dict[str, npt.NDArray[Any]]

_ADVICE = "write it with numpy.savez(file, X=..., y=...), labels as integers or numpy strings"


class NotAnArchive(DataError):
    """The file is not a whole .npz, or not yet."""


def find_npz(place: Path) -> Path:
    """Return the file itself, or the only .npz file of a folder.

    Raises DataError when there is none, or more than one.
    """
    if place.is_file():
        return place
    files = sorted(place.glob("*.npz"))
    if len(files) != 1:
        raise DataError(f"{place}: expected an .npz file or a folder with one, found {len(files)}")
    return files[0]


def read_npz(
    path: Path, stream: IO[bytes] | None = None, maximum: int = PIXEL_MAXIMUM
) -> tuple[Inputs, npt.NDArray[Any], int]:
    """Read inputs X (n, ...), labels y (n,) and, where given, the scalar `maximum` of X.

    Whole numbers from 0 to `maximum` (as given here unless the file says otherwise) become uint8;
    fractions stay as they are and have to lie between 0 and 1; False and True are 0 and 1.

    * `stream`: the file's contents, where they were read before.

    Raises NotAnArchive for a file that is not a whole .npz, DataError for arrays of a kind that
    cannot be trained on.
    """
    arrays = _read_arrays(path, stream)
    missing = {"X", "y"} - arrays.keys()
    if missing:
        raise DataError(
            f"{path}: expected arrays X and y, found {', '.join(sorted(arrays)) or 'none'}"
        )
    maximum = _maximum(path, arrays, maximum)
    return _inputs(path, arrays["X"], maximum), _labels(path, arrays["y"]), maximum


def _read_arrays(path: Path, stream: IO[bytes] | None) -> Arrays:
    try:
        # Opened here: NumPy leaves the file of a damaged archive open, and takes text for a pickle.
        with stream or path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            _check_size(path, archive)
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except DataError:
        raise
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise NotAnArchive(f"{path} cannot be read as .npz: {error}; {_ADVICE}") from error
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}; {_ADVICE}") from error


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse what would not fit: a small archive may hold a thousandfold of zeros."""
    size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST:
        raise DataError(
            f"{path} holds {size} bytes, expected at most {LARGEST}: cut it into several"
        )


def _maximum(path: Path, arrays: Arrays, default: int) -> int:
    given = arrays.get("maximum", np.array(default))
    if given.size != 1 or given.dtype.kind not in "uif" or not 1 <= given.item() <= PIXEL_MAXIMUM:
        raise DataError(f"{path}: expected maximum to be one number from 1 to 255, got {given}")
    return int(given.item())


def _inputs(path: Path, values: npt.NDArray[Any], maximum: int) -> Inputs:
    if values.dtype.kind not in "buif":
        raise DataError(f"{path}: expected numbers in X, got {values.dtype}")
    if values.dtype.kind == "b" or (values.dtype.kind == "f" and not _whole_pixels(values)):
        return values.astype(np.float32)
    if values.size and not (values.min() >= 0 and values.max() <= maximum):
        raise DataError(
            f"{path}: expected whole numbers in X from 0 to {maximum}, "
            f"got {values.min()} to {values.max()}"
        )
    return values.astype(np.uint8)


def _whole_pixels(values: npt.NDArray[Any]) -> bool:
    """Say whether floats are really pixel counts, as scikit-learn's digits are."""
    return bool(values.size and values.max() > 1 and (values == np.floor(values)).all())


def _labels(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.ndim != 1 or values.dtype.kind not in "buiU":
        raise DataError(
            f"{path}: expected y as one column of integers or strings, "
            f"got {values.dtype} of shape {values.shape}"
        )
    return values
