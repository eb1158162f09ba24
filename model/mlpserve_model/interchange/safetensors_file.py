"""The safetensors format: a JSON header with names, types, shapes and offsets, then the values.

https://github.com/huggingface/safetensors describes it; its rules are checked, so that a file means
one thing alone: offsets inside the file, in order, without holes or overlaps.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.nn.types import Array

__all__ = ["decode", "encode", "from_bfloat16"]

_MAX_HEADER = 2**22
_LENGTH = 8  # bytes of the header's own length
_METADATA = "__metadata__"
_TYPES: dict[str, Any] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def encode(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return float32 arrays and texts about them as a file."""
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    parts, end = [], 0
    for name, array in arrays.items():
        parts.append(np.ascontiguousarray(array, "<f4").tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the values are aligned
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


def decode(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a file by their names, and its metadata.

    Raises:
        UnsupportedModel: It is not a whole safetensors file, or holds something else than floats.

    """
    length = int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or length > len(data) - _LENGTH:
        raise UnsupportedModel("not a safetensors file, or cut off")
    if length > _MAX_HEADER:
        raise UnsupportedModel(f"a header of {length} bytes, expected at most {_MAX_HEADER}")
    try:
        header = strict_json.parse(data[_LENGTH : _LENGTH + length])
    except ValueError as error:
        raise UnsupportedModel(
            f"not a safetensors file: its header is not JSON: {error}"
        ) from error
    if not isinstance(header, dict):
        raise UnsupportedModel("not a safetensors file: its header is not an object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise UnsupportedModel("the metadata of the file are not texts")
    return _arrays(header, memoryview(data)[_LENGTH + length :]), metadata


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the numbers whose upper 16 bits these are; NumPy has no type for them."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _arrays(header: dict[str, Any], values: memoryview) -> dict[str, Array]:
    spans = {name: _span(name, info) for name, info in header.items()}
    end = 0
    for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if start != end:
            raise UnsupportedModel(f"the array {name[:100]} begins at {start}, expected {end}")
        end = stop
    if end != len(values):
        raise UnsupportedModel(f"{len(values)} bytes of values, and the header tells of {end}")
    return {name: _array(header[name], values[slice(*span)]) for name, span in spans.items()}


def _span(name: str, info: Any) -> tuple[int, int]:
    shown = f"the array {name[:100]}"
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise UnsupportedModel(f"{shown} is not described by dtype, shape and data_offsets")
    if not isinstance(info["dtype"], str) or info["dtype"] not in _TYPES:
        raise UnsupportedModel(
            f"{shown} holds {str(info['dtype'])[:20]}, expected one of {', '.join(_TYPES)}"
        )
    shape, offsets = info["shape"], info["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise UnsupportedModel(f"{shown} has a shape or offsets that are not whole numbers")
    start, stop = offsets
    needed = math.prod(shape) * np.dtype(_TYPES[info["dtype"]]).itemsize
    if stop - start != needed:
        raise UnsupportedModel(f"{shown} has {stop - start} bytes, and its shape needs {needed}")
    return start, stop


def _are_sizes(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(size) is int for size in value)
    return whole and len(value) <= 16 and all(0 <= size < 2**48 for size in value)


def _array(info: dict[str, Any], data: memoryview) -> Array:
    kind = info["dtype"]
    array: Any = np.frombuffer(data, _TYPES[kind]).reshape(info["shape"])
    if kind == "BF16":
        return from_bfloat16(array)
    whole: Array = array.astype(np.float64) if kind == "I64" else array
    return whole
