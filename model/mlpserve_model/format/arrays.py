"""Named float32 arrays as bytes, in NumPy's .npz container; docs/model-format.md is the norm.

Member names, sizes and headers are all checked. NumPy's own reader is not used, because it trusts
and evaluates the headers, and accepts members, byte orders and trailing bytes that the format
forbids.
"""

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.format.errors import CorruptVersion
from mlpserve_model.nn.network import Layer, Network, Weights

__all__ = ["decode", "decode_weights", "encode", "encode_weights", "max_size"]

Float32 = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

_MAGIC = b"\x93NUMPY\x01\x00"
# The end of a zip's directory: mark, disk numbers, counts, size and offset of it, comment length.
_END = struct.Struct("<4s4H2LH")
# Room for a member's headers in the zip and for its .npy header; NumPy needs about 400 bytes.
_OVERHEAD = 1024


def encode(arrays: Mapping[str, Float32]) -> bytes:
    """Return the arrays as an uncompressed .npz; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    contiguous: dict[str, Any] = {k: np.ascontiguousarray(a, "<f4") for k, a in arrays.items()}
    np.savez(buffer, **contiguous)  # allow_pickle=False would be one more array in NumPy 2.1
    return buffer.getvalue()


def decode(data: bytes, shapes: Shapes) -> dict[str, Float32]:
    """Return the arrays of exactly these names and shapes, read-only and finite.

    Raises:
        CorruptVersion: The file is anything else; the message is the reason.

    """
    if len(data) > max_size(shapes):
        raise CorruptVersion(f"{len(data)} bytes, expected at most {max_size(shapes)}")
    _check_frame(data, shapes)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist(), shapes)
            return {name: _array(archive, name, shape) for name, shape in shapes.items()}
    except CorruptVersion:
        raise
    # zipfile raises many kinds of error for a damaged file, some of them undocumented
    # (struct.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError).
    except Exception as error:
        raise CorruptVersion(f"not a readable .npz file: {error}") from error


def max_size(shapes: Shapes) -> int:
    """Return an upper bound of the bytes of a file with these arrays."""
    arrays = sum(_nbytes(shape) + _OVERHEAD for shape in shapes.values())
    return arrays + _OVERHEAD


def encode_weights(weights: Weights) -> bytes:
    """Return weights as model.npz: w1, w2, ..., b1, b2, ... from the first layer on."""
    named = [(f"w{i}", layer.w) for i, layer in enumerate(weights, 1)]
    named += [(f"b{i}", layer.b) for i, layer in enumerate(weights, 1)]
    return encode({name: a.astype(np.float32) for name, a in named})


def decode_weights(data: bytes, network: Network) -> Weights:
    """Return the weights of this network from model.npz; raises CorruptVersion."""
    arrays = decode(data, weight_shapes(network))
    count = len(network.layer_shapes)
    return tuple(Layer(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(1, count + 1))


def weight_shapes(network: Network) -> Shapes:
    """Return the name and shape of every array in this network's model.npz."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, units) in enumerate(network.layer_shapes, 1):
        shapes[f"w{i}"], shapes[f"b{i}"] = (inputs, units), (units,)
    return shapes


def _check_frame(data: bytes, shapes: Shapes) -> None:
    """Allow no bytes before the first member or after the directory, and no large directory.

    zipfile accepts them, and makes an object of every directory entry before it returns any.
    """
    end = data[-_END.size :]
    if not data.startswith(b"PK\3\4") or len(end) < _END.size or end[:4] != b"PK\5\6":
        raise CorruptVersion("not a whole .npz file: it must begin and end as one")
    size = _END.unpack(end)[5]
    if size > len(shapes) * _OVERHEAD or data[-_END.size - 20 :].startswith(b"PK\6\7"):
        raise CorruptVersion(f"a directory of {size} bytes or in zip64, expected a plain small one")


def _check_members(members: list[zipfile.ZipInfo], shapes: Shapes) -> None:
    names = sorted(member.filename for member in members)
    expected = sorted(f"{name}.npy" for name in shapes)
    if names != expected:
        raise CorruptVersion(f"members {names[:20]}, expected {expected}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 0x1:
            raise CorruptVersion(f"{member.filename} is compressed or encrypted, expected stored")
        limit = _nbytes(shapes[member.filename.removesuffix(".npy")]) + _OVERHEAD
        if member.file_size > limit:
            raise CorruptVersion(
                f"{member.filename} claims {member.file_size} bytes, expected at most {limit}"
            )


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Float32:
    data = archive.read(f"{name}.npy")
    start = _data_start(data, name, shape)
    if len(data) - start != _nbytes(shape):
        raise CorruptVersion(
            f"{name} holds {len(data) - start} bytes of data, expected {_nbytes(shape)}"
        )
    array = np.frombuffer(data, "<f4", offset=start).reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise CorruptVersion(f"{name} has values that are not finite")
    array.flags.writeable = False
    return array


def _data_start(data: bytes, name: str, shape: tuple[int, ...]) -> int:
    """Return the offset of the values; the .npy header must be exactly as expected."""
    if data[: len(_MAGIC)] != _MAGIC:
        raise CorruptVersion(f"{name} is not a .npy array of format 1.0")
    length: int = struct.unpack_from("<H", data, len(_MAGIC))[0]
    start = len(_MAGIC) + 2 + length
    header = data[len(_MAGIC) + 2 : start].decode("latin-1").rstrip(" \n")
    # Compared as text, never evaluated; its padding depends on NumPy's version.
    expected = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    if header != expected:
        raise CorruptVersion(f"{name} has the header {header[:100]!r}, expected {expected}")
    return start


def _nbytes(shape: tuple[int, ...]) -> int:
    return 4 * math.prod(shape)
