"""Named arrays in NumPy's .npz: w1, b1, ..., and texts about them."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_model.format import strict_json
from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.npz_reader import NpzReader, UnreadableArrays
from mlpserve_model.interchange.files import MAX_FILE_BYTES, open_file
from mlpserve_model.nn.types import Array
from mlpserve_model.process.tables import plain

__all__ = ["decode", "encode"]

_METADATA = "metadata"  # a text of JSON, as an array without dimensions
_MAX_TEXT = 2**22


def encode(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return float32 arrays and texts about them as a file that numpy.load reads."""
    buffer = io.BytesIO()
    text = json.dumps(dict(metadata), ensure_ascii=False)
    named: dict[str, Any] = {name: array.astype("<f4") for name, array in arrays.items()}
    named[_METADATA] = np.array(text)
    np.savez(buffer, **named)
    return buffer.getvalue()


def decode(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a file by their names, and its metadata; raises UnsupportedModel."""
    with open_file(path) as stream:
        try:
            reader = NpzReader(stream, plain(path.name))
            headers = {name: reader.header(name) for name in reader.names}
            if sum(header.nbytes for header in headers.values()) > MAX_FILE_BYTES:
                raise UnsupportedModel(
                    f"{plain(path.name)} holds more than {MAX_FILE_BYTES} bytes of values"
                )
            arrays = {name: reader.array(name, MAX_FILE_BYTES) for name in headers}
        except UnreadableArrays as error:
            raise UnsupportedModel(str(error)) from error
    metadata = _metadata(arrays.pop(_METADATA, None), path)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise UnsupportedModel(
                f"the array {plain(name)[:100]} holds {array.dtype}, not numbers"
            )
    return arrays, metadata


def _metadata(array: Any, path: Path) -> dict[str, str]:
    if array is None or array.dtype.kind != "U" or array.size != 1 or array.nbytes > _MAX_TEXT:
        return {}
    try:
        found = strict_json.parse(str(array.item()).encode(errors="replace"))
    except ValueError as error:
        raise UnsupportedModel(
            f"the metadata of {plain(path.name)} are damaged: {error}"
        ) from error
    whole = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found if whole else {}
