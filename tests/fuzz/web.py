"""What is sent to the HTTP server, and its settings."""

import numpy as np
import orjson

from mlpserve_web import codec
from mlpserve_web.errors import HttpError
from mlpserve_web.page import _numbers
from mlpserve_web.settings import read_settings
from tests.fuzz.model import as_settings
from tests.fuzz.target import split, target


@target()
def infer(data: bytes) -> None:
    """The JSON, and the binary data after it where there is a second part."""
    header, *binary = split(data, data.count(b"\n--\n") + 1)
    length = len(header) if binary else None
    try:
        request = codec.decode(header + b"".join(binary), length)
    except HttpError:
        return
    assert request.instances.dtype in (np.uint8, np.float32)
    arrays = {name: np.full((2, 3), 0.5, np.float32) for name in codec.OUTPUTS}
    body, size = codec.encode(request, arrays, "mnist", 1)
    assert orjson.loads(body[:size])["model_name"] == "mnist"


@target(HttpError)
def numbers(data: bytes) -> None:
    """What the page sends."""
    assert _numbers(data, (2, 2)).shape == (2, 2)


@target(UnicodeDecodeError)
def settings(data: bytes) -> None:
    with as_settings(data) as arguments:
        read_settings(arguments)
