"""Files and pipes that mlpserve-client reads, recognised by their first bytes."""

import gzip
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_client import _images
from mlpserve_client._errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image

Array: TypeAlias = npt.NDArray[Any]

_NPY, _NPZ, _GZIP = b"\x93NUMPY", b"PK\x03\x04", b"\x1f\x8b"
_MAX_LINE = 4096  # bytes of a table that are looked at
_IDX_BYTES = b"\x00\x00\x08"  # unsigned bytes, the type of IDX files of images


def read(name: str) -> "Array | Image":
    """Return the array or image in a file, or in stdin for "-".

    A .npy file is mapped, so that it may be larger than memory.

    Raises:
        InvalidInputError: it cannot be read, or is of another kind.

    """
    try:
        if name == "-":
            return _parse(sys.stdin.buffer.read(), name)
        path = Path(name)
        with path.open("rb") as file:
            head = file.read(len(_NPY))
            # Only a file can be mapped, or read from its start again: a pipe has a name too.
            if not path.is_file():
                return _parse(head + file.read(), name)
        if head == _NPY:
            return _checked(np.load(path, mmap_mode="r", allow_pickle=False))
        return _parse(path.read_bytes(), name)
    except InvalidInputError:
        raise
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # gzip, zip and .npy raise exceptions of many kinds
        raise InvalidInputError(f"cannot read {name}: {error}") from error


def _parse(data: bytes, name: str) -> "Array | Image":
    if data.startswith(_GZIP):
        data = gzip.decompress(data)
    if data.startswith(_NPY):
        return _checked(np.load(io.BytesIO(data), allow_pickle=False))
    if data.startswith(_NPZ):
        return _npz(data, name)
    if data.startswith(_IDX_BYTES):
        return _idx(data)
    if _is_table(data):
        raise InvalidInputError(
            f"{name} is a table of text: expected its columns in the order of the training as a "
            ".npy file, which pandas and NumPy write: np.save(FILE, table[COLUMNS].to_numpy())"
        )
    return _images.read(io.BytesIO(data), name)


def _is_table(data: bytes) -> bool:
    """Return True if the first line is text with commas, semicolons or tabs, as of a .csv."""
    first = data[:_MAX_LINE].splitlines()[:1]
    try:
        line = b"".join(first).decode()
    except UnicodeDecodeError:
        return False
    return "\0" not in line and any(mark in line for mark in ",;\t")


def _checked(array: Array) -> Array:
    if not array.ndim:
        raise ValueError("it holds a single number")
    return array


def _npz(data: bytes, name: str) -> Array:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if "X" in arrays:
            return _checked(arrays["X"])
        if len(arrays.files) == 1:
            return _checked(arrays[arrays.files[0]])
        raise InvalidInputError(
            f"{name} holds {', '.join(arrays.files)}: name the instances X, or keep one array"
        )


def _idx(data: bytes) -> Array:
    """Parse IDX: two zeros, the type, the number of dimensions, each big-endian, the values."""
    if len(data) < 4:
        raise ValueError("its IDX header is cut short")
    dimensions = data[3]
    shape = tuple(np.frombuffer(data, ">u4", dimensions, offset=4).tolist())
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    return _checked(values.reshape(shape))
