"""Open Inference Protocol over HTTP: between bodies and arrays. No HTTP library in sight.

The JSON form and the binary tensor data extension, in which the values follow the JSON
uncompressed: https://github.com/kserve/open-inference-protocol and Triton's
`protocol/extension_binary_data.md`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from mlpserve_web.errors import HttpError

__all__ = [
    "ATTRIBUTIONS",
    "DEFAULT_OUTPUTS",
    "INPUT",
    "OUTPUTS",
    "InferRequest",
    "decode",
    "encode",
]

INPUT = "instances"
MAX_DIMENSIONS = 8
# Parsed, a number takes ten times its digits, and other callers wait: 0.6 s for as much as this.
MAX_JSON_BYTES = 16 << 20
# Of a request: 8,192 images of 28 rows have 240,000.
MAX_PARTS = 2**20
_PARTS = (b"[", b"{", b'"')
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype(np.uint8)}
# Parameters that would change what is asked for; any other is a hint that may be ignored.
_REFUSED = ("shared_memory_", "classification")


ATTRIBUTIONS = "attributions"
# What can be asked for, and of which datatype it is.
OUTPUTS = {"labels": "INT64", "probabilities": "FP32", ATTRIBUTIONS: "FP32"}
# What a request gets that names none, and what the metadata have: clients ask for all of these.
DEFAULT_OUTPUTS = ("labels", "probabilities")


class InferRequest(NamedTuple):
    """A request whose form is right; the server still checks shape and values.

    Attributes:
        id: what the caller calls it; None if it has no name.
        instances: uint8 or float32, in the shape that was given.
        outputs: the names wanted, in order, and whether each comes as binary data.
    """

    id: str | None
    instances: NDArray[Any]
    outputs: Mapping[str, bool]


def decode(body: bytes, header_length: int | None) -> InferRequest:
    """Read a request.

    Args:
        body: the whole body.
        header_length: the bytes of its JSON, where binary data follow; None if none do.

    Raises:
        HttpError: 400, with what was expected and what came.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise _bad(f"Inference-Header-Content-Length is {header_length} of {len(body)} bytes")
    message = _json_object(body[:header_length])
    tensors = _typed(message, "inputs", list, [])
    if len(tensors) != 1 or not isinstance(tensors[0], dict):
        raise _bad(f"{len(tensors)} inputs, expected one object named {INPUT!r}")
    binary = None if header_length is None else body[header_length:]
    return InferRequest(
        _typed(message, "id", str, None), _instances(tensors[0], binary), _outputs(message)
    )


def encode(
    request: InferRequest, arrays: Mapping[str, NDArray[Any]], name: str, version: int
) -> tuple[bytes, int | None]:
    """Return the response's body, and the bytes of its JSON if binary data follow.

    `arrays` has the outputs asked for; `name` and `version` are of the model that answered.
    """
    described, data = [], []
    for output, binary in request.outputs.items():
        values = np.ascontiguousarray(arrays[output])
        tensor: dict[str, Any] = {
            "name": output,
            "datatype": OUTPUTS[output],
            "shape": list(values.shape),
        }
        if binary:
            data.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": values.nbytes}
        else:
            tensor["data"] = values.ravel()
        described.append(tensor)
    message = {"model_name": name, "model_version": str(version), "outputs": described}
    if request.id is not None:
        message["id"] = request.id
    header = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([header, *data]), len(header) if data else None


def _json_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_JSON_BYTES:
        raise HttpError(
            413,
            f"{len(data)} bytes of JSON, expected at most {MAX_JSON_BYTES}: send smaller batches, "
            "or the values as binary data",
        )
    # Counted first: 60 MB of empty arrays became 2.4 GB of objects, and took 20 s.
    if sum(map(data.count, _PARTS)) > MAX_PARTS:
        raise _bad(f"more than {MAX_PARTS} arrays, objects and strings in the JSON")
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise _bad("the body is not a JSON object")
    return message


def _instances(tensor: dict[str, Any], binary: bytes | None) -> NDArray[Any]:
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if name != INPUT:
        raise _bad(f"there is no input {_shown(name)}, expected {INPUT!r}")
    dtype = _DTYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise _bad(f"datatype {_shown(datatype)}, expected {' or '.join(_DTYPES)}")
    shape = _shape(tensor.get("shape"))
    size = _parameters(tensor, "inputs[0]").get("binary_data_size")
    if size is not None:
        if "data" in tensor:
            raise _bad("data and binary_data_size, expected one of them")
        return _from_binary(binary, size, shape, dtype)
    if binary:
        raise _bad(f"{len(binary)} bytes follow the JSON, and no input has binary_data_size")
    return _from_json(tensor.get("data"), shape, dtype)


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = isinstance(shape, list) and all(type(n) is int and 0 < n < 2**31 for n in shape)
    if not sizes or not 0 < len(shape) <= MAX_DIMENSIONS:
        raise _bad(f"shape {_shown(shape)}, expected 1 to {MAX_DIMENSIONS} sizes of at least 1")
    return tuple(shape)


def _from_binary(
    binary: bytes | None, size: Any, shape: Sequence[int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    if binary is None:
        raise _bad("binary_data_size without the header Inference-Header-Content-Length")
    expected = math.prod(shape) * dtype.itemsize
    if type(size) is not int or not size == len(binary) == expected:
        raise _bad(
            f"binary_data_size {_shown(size)} and {len(binary)} bytes after the JSON, "
            f"expected {expected} of both for this shape"
        )
    return np.frombuffer(binary, dtype).reshape(shape)


def _from_json(data: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values, which may be nested as the shape has it, or flat."""
    if not isinstance(data, list):
        raise _bad("no data: expected an array of numbers, or binary_data_size")
    if len(data) > math.prod(shape):  # before anything is made of them
        raise _bad(f"data of {len(data)} parts, expected {list(shape)} or flat")
    _check_numbers(data, MAX_DIMENSIONS)
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise _bad("the data are not a rectangular array of numbers") from error
    if values.dtype.kind not in "iuf" and values.size:
        raise _bad("the data are not numbers")
    if values.size != math.prod(shape) or values.shape not in (tuple(shape), (values.size,)):
        raise _bad(f"data of shape {list(values.shape)}, expected {list(shape)} or flat")
    if dtype == np.uint8:
        whole = values.dtype.kind in "iu" or not values.size
        if not whole or (values.size and not (values.min() >= 0 and values.max() <= 255)):
            raise _bad("a value is out of range for UINT8, expected whole numbers of 0 to 255")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused by the server
        return values.astype(dtype).reshape(shape)


def _check_numbers(data: list[Any], levels: int) -> None:
    """Raise HttpError for anything but numbers: NumPy makes each value as long as the longest text.

    A text of 10,000 letters among 200,000 numbers would take eight gigabytes.
    """
    if levels and data and isinstance(data[0], list):
        for part in data:
            if not isinstance(part, list):
                raise _bad("the data are not a rectangular array of numbers")
            _check_numbers(part, levels - 1)
        return
    try:
        sum(data)  # the fastest way to see that all are numbers
    except TypeError as error:
        raise _bad("the data are not numbers") from error


def _outputs(message: dict[str, Any]) -> dict[str, bool]:
    default = bool(_parameters(message, "the request").get("binary_data_output", False))
    wanted = _typed(message, "outputs", list, [])
    if not wanted:
        return dict.fromkeys(DEFAULT_OUTPUTS, default)
    outputs: dict[str, bool] = {}
    for place, output in enumerate(wanted):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in OUTPUTS or name in outputs:
            expected = f"an object with one of the names {', '.join(OUTPUTS)}"
            raise _bad(f"outputs[{place}] is {_shown(output)}, expected {expected}, each once")
        parameters = _parameters(output, f"outputs[{place}]")
        outputs[name] = bool(parameters.get("binary_data", default))
    return outputs


def _parameters(part: dict[str, Any], where: str) -> dict[str, Any]:
    parameters: dict[str, Any] = _typed(part, "parameters", dict, {})
    for name in parameters:
        if name.startswith(_REFUSED):
            raise _bad(f"parameter {_shown(name)} of {where} is not supported")
    return parameters


def _typed(part: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = part.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise _bad(f"{name} is {_shown(value)}, expected a JSON {_KINDS[kind]}")
    return value


_KINDS: dict[Any, str] = {list: "array", dict: "object", str: "string"}


def _shown(value: Any) -> str:
    """Return a value of the caller's as JSON, cut to what a message can hold."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # it writes 254 levels, and reads 1,024
        return "a deeply nested value"
    return text if len(text) <= 64 else f"{text[:61]}..."


def _bad(message: str) -> HttpError:
    return HttpError(400, message)
