"""The one reader of .npz files that others wrote.

It trusts nothing: the archive's directory, the arrays' headers and their sizes are checked before
anything is inflated, and values are read in pieces. NumPy's own reader evaluates the headers as
Python, believes the sizes they claim, and inflates each array whole.
"""

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayHeader", "NpzReader", "TornArchive", "UnreadableArrays", "check_directory"]

Array = npt.NDArray[Any]

MAX_DIRECTORY = 2**20  # bytes: some ten thousand arrays
MAX_HEADER = 2**12
MAX_DIMENSIONS = 32
MAX_DIGITS = 18
CHUNK = 2**22

_END = struct.Struct("<4s4H2LH")  # mark, disks, counts, size and offset of the directory, comment
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{ *'descr' *: *'(?P<dtype>[<>|=]?[a-zA-Z]\d{0,6})' *, *"
    r"'fortran_order' *: *(?P<fortran>True|False) *, *"
    r"'shape' *: *\((?P<shape>[\d, ]*)\) *,? *\} *"
)
_ADVICE = "write it with numpy.savez(file, X=..., y=...), labels as integers or numpy strings"


class UnreadableArrays(ValueError):
    """The file is one that no writer of arrays makes; the message says why."""


class TornArchive(UnreadableArrays):
    """The file is not a whole .npz, or not yet."""


@dataclass(frozen=True)
class ArrayHeader:
    """What an array says of itself."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of the values, inflated, in bytes."""
        return self.size * self.dtype.itemsize


class NpzReader:
    """The arrays of an open .npz file, by name.

    Args:
        stream: the file, which has to stay open.
        name: what the errors call it.

    Raises:
        TornArchive: the file is not a whole .npz; this and UnreadableArrays by every method too.
        UnreadableArrays: it is one that no writer of arrays makes.

    """

    # What is raised; a room with errors of its own replaces both.
    torn: type[Exception] = TornArchive
    unreadable: type[Exception] = UnreadableArrays

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._name = name
        with self._translated():
            check_directory(stream)
            self._archive = zipfile.ZipFile(stream)
            self._members = _members(self._archive)

    @property
    def names(self) -> list[str]:
        """The names of the arrays, sorted."""
        return sorted(self._members)

    def header(self, array: str) -> ArrayHeader:
        """Return what the array `array` says of itself, checked against the archive."""
        with self._translated(), self._open(array) as stream:
            return _read_header(stream, self._members[array].file_size)

    def chunks(self, array: str) -> Iterator[Array]:
        """Give the array's values in the order of the file, as flat pieces of a few MiB."""
        with self._translated(), self._open(array) as stream:
            header = _read_header(stream, self._members[array].file_size)
            left, step = header.nbytes, max(CHUNK // max(header.dtype.itemsize, 1), 1)
            while left:
                data = _read_exactly(stream, min(left, step * header.dtype.itemsize))
                left -= len(data)
                yield np.frombuffer(data, header.dtype)
            stream.read(1)  # only at its end is the member's checksum compared

    def array(self, array: str, limit: int) -> Array:
        """Return a whole array of at most `limit` bytes."""
        header = self.header(array)
        if header.nbytes > limit:
            raise self.unreadable(
                f"{self._name}: {array} has {header.nbytes} bytes, expected at most {limit}"
            )
        flat = np.empty(header.size, header.dtype)
        start = 0
        for chunk in self.chunks(array):
            flat[start : start + len(chunk)] = chunk
            start += len(chunk)
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")

    def _open(self, array: str) -> IO[bytes]:
        member = self._members[array]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnreadableArrays(f"{array} is compressed in a way that NumPy never writes")
        return self._archive.open(member)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnreadableArrays as error:
            raise self.unreadable(f"{self._name}: {error}") from error
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise self.torn(f"{self._name} cannot be read as .npz: {error}; {_ADVICE}") from error
        # zipfile fails at damaged files in many ways that are documented nowhere (struct.error,
        # NotImplementedError, RuntimeError, UnicodeDecodeError, OverflowError ...).
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise self.unreadable(
                f"{self._name} cannot be read as .npz: {reason}; {_ADVICE}"
            ) from error


def check_directory(stream: IO[bytes]) -> None:
    """Refuse what does not begin and end as an archive, or whose directory is large.

    zipfile reads the whole directory into memory before anything can be looked at. Raises
    zipfile.BadZipFile or UnreadableArrays.
    """
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    begin = stream.read(4)
    tail_length = min(length, _END.size + _LOCATOR.size + _END64.size)
    stream.seek(length - tail_length)
    tail = stream.read(tail_length)
    if begin[:2] != b"PK" or tail[-_END.size :][:4] != b"PK\5\6":
        raise zipfile.BadZipFile("File is not a zip file, or not a whole one")
    size = _END.unpack(tail[-_END.size :])[5]
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator[:4] == b"PK\6\7":  # zip64, as arrays of more than 4 GiB need it
        end64 = tail[: -_END.size - _LOCATOR.size]
        if len(end64) < _END64.size or end64[:4] != b"PK\6\6":
            raise zipfile.BadZipFile("the end of its directory is damaged")
        size = max(0 if size == 0xFFFFFFFF else size, _END64.unpack(end64)[8])
    if size > MAX_DIRECTORY:
        raise UnreadableArrays(f"its directory has {size} bytes, expected at most {MAX_DIRECTORY}")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays by name; what is no array is left alone."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            continue
        if name in members:
            raise UnreadableArrays(f"it holds {name[:100]!r} twice")
        members[name] = member
    return members


def _read_header(stream: IO[bytes], member_size: int) -> ArrayHeader:
    start = _read_exactly(stream, 8)
    if start[:6] != _MAGIC or start[6:] not in (b"\1\0", b"\2\0"):
        raise UnreadableArrays("an array does not begin as .npy of format 1.0 or 2.0")
    length_bytes = _read_exactly(stream, 2 if start[6] == 1 else 4)
    length = int.from_bytes(length_bytes, "little")
    if length > MAX_HEADER:
        raise UnreadableArrays(
            f"an array has a header of {length} bytes, expected at most {MAX_HEADER}"
        )
    text = _read_exactly(stream, length).decode("latin-1").rstrip("\n")
    # Matched as text, never evaluated.
    found = _HEADER.fullmatch(text)
    if not found:
        raise UnreadableArrays(
            f"an array has the header {text.strip()[:200]!r}, expected that of numbers or "
            f"strings; {_ADVICE}"
        )
    header = ArrayHeader(_dtype(found["dtype"]), _shape(found["shape"]), found["fortran"] == "True")
    inside = member_size - len(start) - len(length_bytes) - length
    if header.nbytes != inside:
        raise UnreadableArrays(
            f"an array of shape {header.shape} and type {header.dtype} needs {header.nbytes} "
            f"bytes, but has {inside}"
        )
    return header


def _dtype(text: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError) as error:
        raise UnreadableArrays(f"an array has the unknown type {text!r}") from error
    if dtype.hasobject or not dtype.itemsize:
        raise UnreadableArrays(f"an array holds {dtype}, expected numbers or strings; {_ADVICE}")
    return dtype


def _shape(text: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.split(",")]
    if not sizes[-1]:  # (3,) and ()
        sizes.pop()
    if len(sizes) > MAX_DIMENSIONS:
        raise UnreadableArrays(
            f"an array has {len(sizes)} dimensions, expected at most {MAX_DIMENSIONS}"
        )
    if not all(size.isdecimal() and len(size) <= MAX_DIGITS for size in sizes):
        raise UnreadableArrays(
            f"an array has the shape ({text[:100]}), expected sizes such as (3, 28)"
        )
    return tuple(map(int, sizes))


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Read `count` bytes, or raise EOFError."""
    parts, left = [], count
    while left:
        part = stream.read(left)
        if not part:
            raise EOFError("an array ends early")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
