"""ONNX files as messages: bounded before they are parsed, external data only from beside them."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.manifest import MAX_PARAMETERS
from mlpserve_model.interchange.files import MAX_FILE_BYTES, read_file
from mlpserve_model.interchange.onnx_values import Constant
from mlpserve_model.interchange.safetensors_file import from_bfloat16
from mlpserve_model.process.tables import plain
from mlpserve_model.store.atomic_files import Directory, UnusableFile

__all__ = ["array_of", "load_model"]

# A message of two bytes takes about 200 in memory, so what is not numbers is bounded apart.
MAX_STRUCTURE = 2**20
MAX_NODES = 10_000
_MAX_DIGITS = 18
# Fields on the way to the numbers, by the path of field numbers: ModelProto.graph (7),
# GraphProto.initializer (5) or node (1).attribute (5).t (5).
_DESCEND = {(): {7}, (7,): {1, 5}, (7, 1): {5}, (7, 1, 5): {5}}
_TENSORS = ((7, 5), (7, 1, 5, 5))
_NUMBERS = {4, 9, 10}  # TensorProto.float_data, raw_data, double_data


def load_model(path: Path) -> Any:
    """Return a ModelProto whose external data, if it has any, is in it.

    Raises:
        UnsupportedModel: It is not an ONNX model, or larger than any that can be imported.

    """
    data = memoryview(read_file(path))
    shown = plain(path.name)
    structure = len(data) - sum(_numbers(data, ()))
    if structure > MAX_STRUCTURE:
        raise UnsupportedModel(
            f"{shown} has {structure} bytes beside its weights, expected at most {MAX_STRUCTURE}"
        )
    try:
        model = onnx.ModelProto.FromString(bytes(data))
    except DecodeError as error:
        raise UnsupportedModel(f"{shown} is not an ONNX model, or is cut off") from error
    if not model.graph.node or not model.opset_import:
        raise UnsupportedModel(f"{shown} is not an ONNX model: it has no graph of operators")
    if len(model.graph.node) > MAX_NODES:
        raise UnsupportedModel(f"{len(model.graph.node)} nodes, expected at most {MAX_NODES}")
    if any(isinstance(text, bytes) for text in _texts(model)):  # what protobuf gives them as
        raise UnsupportedModel(f"{shown} holds names that are not UTF-8")
    _read_external(model.graph.initializer, path)
    return model


def array_of(tensor: Any) -> Constant:
    """Return the values of a TensorProto; its claims are compared with its bytes first."""
    shown = f"tensor {plain(tensor.name)[:100]}" if tensor.name else "a tensor"
    if tensor.data_location == TensorProto.EXTERNAL:
        raise UnsupportedModel(f"{shown} has external data, expected for initializers alone")
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 16:
        raise UnsupportedModel(f"{shown} has the shape {list(tensor.dims)[:16]}")
    values = math.prod(tensor.dims)
    if values > MAX_PARAMETERS:
        raise UnsupportedModel(
            f"{shown} claims {values:,} values, expected at most {MAX_PARAMETERS:,}"
        )
    if values and tensor.data_type != TensorProto.STRING and not _plausible(tensor, values):
        raise UnsupportedModel(f"{shown} claims {values:,} values, and holds fewer or more")
    try:
        if tensor.data_type == TensorProto.BFLOAT16:  # which onnx reads as one type or another
            halves = np.frombuffer(tensor.raw_data, "<u2") if tensor.raw_data else tensor.int32_data
            return from_bfloat16(np.asarray(halves, np.uint16)).reshape(tensor.dims)
        array = np.asarray(numpy_helper.to_array(tensor))
    # to_array fails at wrong types and lengths in many ways (KeyError, TypeError, ValueError ...).
    except Exception as error:
        raise UnsupportedModel(f"{shown} cannot be read: {error}") from error
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        raise UnsupportedModel(f"{shown} holds complex numbers")
    return array


def _plausible(tensor: Any, values: int) -> bool:
    """Compare the number of values with what is there; types below a byte are left to NumPy."""
    if tensor.raw_data:
        return len(tensor.raw_data) <= 16 * values and values <= 2 * len(tensor.raw_data)
    fields = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data)
    held = max(len(field) for field in (*fields, tensor.uint64_data))
    return values <= 8 * held


def _texts(model: Any) -> Iterator[Any]:
    """Give every text of a model that is used."""
    graph = model.graph
    yield from (model.producer_name, model.producer_version)
    yield from (opset.domain for opset in model.opset_import)
    yield from (text for entry in model.metadata_props for text in (entry.key, entry.value))
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.t.name)


def _read_external(tensors: Any, path: Path) -> None:
    """Put external data into its tensors, up to MAX_FILE_BYTES all together."""
    left = MAX_FILE_BYTES
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            data = _external(tensor, path, left)
            left -= len(data)
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = data


def _external(tensor: Any, path: Path, limit: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name, shown = entries.get("location", ""), plain(tensor.name)[:100]
    # A file beside the model, no path: neither "../secret" nor "/etc/passwd" nor a folder's.
    if not name or Path(name).name != name or name in (".", "..") or "\\" in name or "\0" in name:
        raise UnsupportedModel(
            f"tensor {shown} has its data in {plain(name)[:100]}, "
            "expected a file in the folder of the model"
        )
    try:
        offset, length = (_place(entries.get(key, "0")) for key in ("offset", "length"))
        with Directory(path.parent) as folder, folder.open(name) as file:
            size = file.seek(0, 2)
            length = length or size - offset
            if not 0 <= offset <= offset + length <= size or length > limit:
                raise UnsupportedModel(
                    f"tensor {shown} claims {length} bytes from {offset} of {plain(name)}, "
                    f"which has {size}"
                )
            file.seek(offset)
            return file.read(length)
    except (OSError, UnusableFile, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnsupportedModel(
            f"tensor {shown}: its data in {plain(name)} cannot be read: {reason}"
        ) from error


def _place(text: str) -> int:
    if len(text) > _MAX_DIGITS or not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(f"{plain(text)[:100]} is not a place in it")
    return int(text)


def _numbers(data: memoryview, path: tuple[int, ...]) -> Iterator[int]:
    """Give the length of each run of numbers in a message; what is malformed ends it."""
    position = 0
    while position < len(data):
        try:
            tag, position = _varint(data, position)
            if tag & 7 != 2:
                position = _skip(data, position, tag & 7)
                continue
            length, position = _varint(data, position)
        except (IndexError, ValueError):
            return
        field, inner = tag >> 3, data[position : position + length]
        position += length
        if path in _TENSORS and field in _NUMBERS:
            yield len(inner)
        elif field in _DESCEND.get(path, ()) or (*path, field) in _TENSORS:
            yield from _numbers(inner, (*path, field))


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number of more than ten bytes")


def _skip(data: memoryview, position: int, wire_type: int) -> int:
    if wire_type == 0:
        return _varint(data, position)[1]
    if wire_type in (1, 5):
        return position + (8 if wire_type == 1 else 4)
    raise ValueError("a wire type that is not used")
