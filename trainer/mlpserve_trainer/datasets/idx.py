"""The IDX format of the MNIST files, read and written, plain or gzip.

A file is two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, their
sizes as big-endian 32-bit integers, then the values in row-major order.
"""

import gzip
import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.input_files import open_data

__all__ = ["IdxFolder", "has_images", "read_folder", "read_idx", "write_idx"]

UNSIGNED_BYTES = 8
GZIP_MAGIC = b"\x1f\x8b"
MAX_DIMENSIONS = 32
CHUNK = 2**22

TRAINING_WORDS = ("train",)
TEST_WORDS = ("t10k", "test")


@dataclass(frozen=True, eq=False)
class IdxFolder:
    """The contents of a folder of IDX files: training rows first, then the test rows.

    * `images`: (n, ...) uint8.
    * `labels`: (n,) uint8, as written in the files.
    * `training_rows`: how many rows are training rows; None where the folder has no test files.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    training_rows: int | None


def read_folder(folder: Path) -> IdxFolder:
    """Read `*train*images*` and `*test*images*` (or `*t10k*`) with the labels beside them.

    A folder with a single pair of files has no official split.

    Raises DataError for no such files, an unclear choice of files, or a file that is damaged.
    """
    pairs = _pairs(folder)
    if len(pairs) == 1:
        images, labels = _read_pair(*next(iter(pairs.values())))
        return IdxFolder(images, labels, None)
    train = _read_pair(*_choose(folder, pairs, TRAINING_WORDS))
    test = _read_pair(*_choose(folder, pairs, TEST_WORDS))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{folder}: training images are {train[0].shape[1:]} but test images are "
            f"{test[0].shape[1:]}; expected the same shape"
        )
    return IdxFolder(
        np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]]), len(train[0])
    )


def has_images(folder: Path) -> bool:
    """Say whether the folder holds at least one IDX image file."""
    return folder.is_dir() and bool(_files(folder, "images"))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read one file of unsigned bytes, plain or gzip whatever its name.

    Raises DataError for what is not IDX, not unsigned bytes, or not as long as it claims.
    """
    try:
        with open_data(path) as file, _inflated(file) as stream:
            return _read_array(path, stream)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch the file again") from error


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    """Write an array of any shape as an uncompressed IDX file."""
    header = bytes([0, 0, UNSIGNED_BYTES, values.ndim])
    with path.open("wb") as stream:
        stream.write(header + struct.pack(f">{values.ndim}I", *values.shape))
        stream.write(np.ascontiguousarray(values).data)


def _inflated(file: io.BufferedReader) -> IO[bytes]:
    compressed = file.peek(2)[:2] == GZIP_MAGIC
    return gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[return-value]


def _read_array(path: Path, stream: IO[bytes]) -> npt.NDArray[np.uint8]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTES]):
        raise DataError(
            f"{path} has the wrong magic number: expected 000008 and the number of dimensions "
            f"(IDX, unsigned bytes), got {magic.hex() or 'an empty file'}"
        )
    shape = _read_shape(path, stream, magic[3])
    size, limit = math.prod(shape), memory_limit()
    if size > limit:
        raise DataError(
            f"{path} claims the shape {shape}: {size} bytes, expected at most {limit} for this "
            "machine or container"
        )
    # In pieces: a file may claim far more than it holds, and a small one inflate to it.
    chunks, left = [], size
    while left and (chunk := stream.read(min(left, CHUNK))):
        chunks.append(chunk)
        left -= len(chunk)
    if left or stream.read(1):
        raise DataError(f"{path} should hold {size} values for shape {shape}, but does not")
    return np.frombuffer(b"".join(chunks), dtype=np.uint8).reshape(shape)


def _read_shape(path: Path, stream: IO[bytes], dimensions: int) -> tuple[int, ...]:
    if dimensions > MAX_DIMENSIONS:
        raise DataError(f"{path} has {dimensions} dimensions, expected at most {MAX_DIMENSIONS}")
    shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
    if 0 in shape:
        raise DataError(f"{path} is empty: it claims the shape {shape}")
    return shape


def _read_pair(
    images_path: Path, labels_path: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim < 2 or labels.ndim != 1:
        raise DataError(
            f"expected images of two or more dimensions and labels of one: {images_path.name} "
            f"has {images.ndim}, {labels_path.name} has {labels.ndim}"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path.name} has {len(images)} images but {labels_path.name} has "
            f"{len(labels)} labels; expected as many of each"
        )
    return images, labels


def _files(folder: Path, word: str) -> dict[str, Path]:
    """Map what stands before `word` in the file names to the files; plain files win over .gz."""
    found = sorted((p for p in folder.iterdir() if word in p.name), key=lambda p: p.suffix != ".gz")
    return {path.name.partition(word)[0]: path for path in found}


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    if not has_images(folder):
        raise DataError(
            f"{folder} holds no IDX files: expected names such as train-images-idx3-ubyte.gz"
        )
    images, labels = _files(folder, "images"), _files(folder, "labels")
    if images.keys() != labels.keys():
        lonely = sorted(images.keys() ^ labels.keys())
        raise DataError(
            f"{folder}: expected a labels file for each images file; "
            f"half of a pair is missing for {', '.join(map(repr, lonely))}"
        )
    return {prefix: (images[prefix], labels[prefix]) for prefix in images}


def _choose(
    folder: Path, pairs: dict[str, tuple[Path, Path]], words: tuple[str, ...]
) -> tuple[Path, Path]:
    matching = [prefix for prefix in pairs if any(word in prefix for word in words)]
    if len(matching) != 1:
        raise DataError(
            f"{folder}: expected one pair of files with {' or '.join(words)} in their names, "
            f"found {len(matching)} among {', '.join(sorted(pairs))}"
        )
    return pairs[matching[0]]
