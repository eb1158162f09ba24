"""Images as PNG in data URIs: grey values, weights around zero, and shares of a colour."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["grey", "shares_of", "signed"]

WHITE, BLUE, RED = (247, 247, 247), (33, 94, 168), (178, 32, 44)
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # of PNG, by channels: grey, RGB, RGB with opacity

Values = npt.NDArray[np.floating]


def grey(values: Values) -> str:
    """Return an image (height, width) of values from 0, black, to 1, white."""
    return _data_uri(np.clip(values, 0.0, 1.0)[:, :, None] * 255)


def signed(values: Values) -> str:
    """Return an image (height, width) of values around 0, blue below and red above."""
    shares = values / (np.abs(values).max() or 1.0)
    colours = np.where(shares[:, :, None] < 0, BLUE, RED)
    strength = np.abs(shares)[:, :, None]
    return _data_uri(strength * colours + (1 - strength) * np.array(WHITE))


def shares_of(colour: tuple[int, int, int], values: Values) -> str:
    """Return an image (height, width) of a colour whose opacity is a value of 0 to 1."""
    pixels = np.empty((*values.shape, 4))
    pixels[:, :, :3] = colour
    pixels[:, :, 3] = values * 255
    return _data_uri(pixels)


def _data_uri(pixels: Values) -> str:
    """Encode pixels (height, width, channels) of 0 to 255."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # 0 before each row: no filter
    rows[:, 1:] = np.rint(pixels).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    file = b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
