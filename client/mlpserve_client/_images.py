"""Turns images of any size into the inputs of a model for drawn digits.

Light strokes on a dark ground, the drawing scaled into the middle with MNIST's margin
and centred by its mass. An image that already has the model's shape keeps its pixels.
"""

import math
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlpserve_client._errors import InvalidInputError
from mlpserve_client._inputs import as_array, is_image
from mlpserve_client._results import ModelVersion

if TYPE_CHECKING:
    from PIL.Image import Image

Grey = npt.NDArray[np.float32]  # [height, width], 0 to 1

_INK = 0.2  # brightness; anything paler is paper: shadows and JPEG noise
_MUCH_INK = 0.5  # of an image's area; strokes cover far less
_BLANK = 2 / 255  # contrast; less than this is noise
# Of a file's image, whose header alone says how much memory it takes: four bytes a pixel and more.
MAX_PIXELS = 1 << 26
# A larger drawing is made smaller before anything else: the steps after it take 20 bytes a pixel.
_LARGE = 1 << 22  # pixels
_BAND = 1 << 20  # pixels that are converted at a time
_ORIENTATION = 0x0112  # a tag of EXIF
_MIN_SIDE = 5  # pixels; an image that comes as a flat vector has at least as many a side


class Fitter:
    """Turns instances into arrays; gets the model's description once, at the first image."""

    def __init__(self, model: Callable[[], Awaitable[ModelVersion]]) -> None:
        self._model = model
        self._described: ModelVersion | None = None

    async def as_array(self, instance: Any) -> npt.NDArray[Any]:
        """Return an image fitted to the model, or an array as it is."""
        if not is_image(instance):
            return as_array(instance)
        if self._described is None:
            self._described = await self._model()
        return fit(instance, picture_shape(self._described))


def picture_shape(model: ModelVersion) -> tuple[int, ...]:
    """Return the input shape of a model that takes pictures.

    Raises:
        InvalidInputError: it takes real numbers, of whatever shape.

    """
    if model.input_kind == "real":
        raise InvalidInputError(
            "the model takes real numbers in the units of its training data, not images: pass an "
            f"array of floats of shape {model.input_shape}"
        )
    return model.input_shape


def fit(image: "Image | str | Path", input_shape: tuple[int, ...]) -> Grey:
    """Return a Pillow image or an image file as one instance.

    Args:
        image: a Pillow image or the path of a file that Pillow reads (PNG, JPEG, ...).
        input_shape: the model's: two-dimensional, or the number of pixels of a square.

    Returns:
        `input_shape` float32, 0 to 1.

    Raises:
        InvalidInputError: the file cannot be read, the image is blank or damaged, or the
            model takes no images.

    """
    height, width = plane(input_shape)
    grey = _upright_grey(read(image, str(image)) if isinstance(image, str | Path) else image)
    if not grey.size:
        raise InvalidInputError("the image has no pixels")
    if grey.max() - grey.min() < _BLANK:
        raise InvalidInputError("the image is blank: every pixel has the same brightness")
    if np.median(_border(grey)) > 0.5:
        grey = 1 - grey
    if grey.shape != (height, width):
        grey = _centred(_cropped(_evenly_lit(_stretched(grey))), height, width)
    return grey.reshape(input_shape)


def _upright_grey(image: "Image") -> Grey:
    from PIL import ImageOps

    try:
        # Telephones store pixels as the sensor has them, and a tag that says how to turn them.
        return _grey(ImageOps.exif_transpose(_smaller(image)))
    except Exception as error:  # closed, cut off or damaged: exceptions of many kinds
        raise InvalidInputError(f"cannot read the image: {error}") from error


def _evenly_lit(grey: Grey) -> Grey:
    """Warn if much of an image is as dark as ink, as in a photograph with a shadow on it."""
    if (grey > _INK).mean() > _MUCH_INK:
        warnings.warn(
            "more than half of the image is ink: the light may be uneven, and the answer wrong; "
            "crop the image to the drawing, or raise its contrast",
            stacklevel=2,
        )
    return grey


def plane(input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of the images that a model takes.

    Raises:
        InvalidInputError: the model takes no images.

    """
    sides = tuple(side for side in input_shape if side != 1)
    if len(sides) == 2:
        return sides
    root = math.isqrt(math.prod(sides))
    if len(sides) == 1 and root * root == sides[0] and root >= _MIN_SIDE:
        return root, root
    raise InvalidInputError(f"the model takes arrays of shape {input_shape}, not images")


def read(file: str | Path | IO[bytes], name: str) -> "Image":
    """Read an image file of any kind that Pillow supports.

    Args:
        file: a path or an open file.
        name: its name in messages.

    Raises:
        InvalidInputError: Pillow is not installed, or cannot read the file, or the image is
            larger than `MAX_PIXELS`.

    """
    with open_image(file, name) as opened:
        try:
            opened.load()
        except Exception as error:  # Pillow's decoders raise exceptions of many kinds
            raise InvalidInputError(f"cannot read {name} as an image: {error}") from error
        return opened


def open_image(
    file: str | Path | IO[bytes],
    name: str,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> "Image":
    """Read an image's header; its pixels are read when they are first used.

    Args:
        file: a path or an open file.
        name: its name in messages.
        max_pixels: refuse a larger image; a JPEG, which is decoded at a smaller scale then, if
            it has more than four times as many.
        formats: the kinds of files that are read, as Pillow names them; None for all.

    Raises:
        InvalidInputError: Pillow is not installed, or cannot read the file, or the image is
            too large.

    """
    try:
        import PIL.Image
    except ImportError as error:
        raise InvalidInputError(
            f"cannot read {name}: image files need Pillow: pip install pillow"
        ) from error
    try:
        opened = PIL.Image.open(file, formats=formats)
    except PIL.UnidentifiedImageError as error:  # its text holds the address of an object
        raise InvalidInputError(
            f"{name} is not an image that Pillow can read, and no .npy, .npz or IDX file; "
            "numpy.save writes rows of numbers as .npy"
        ) from error
    except Exception as error:
        raise InvalidInputError(f"cannot read {name} as an image: {error}") from error
    if max_pixels < opened.width * opened.height <= 4 * max_pixels:
        side = math.isqrt(max_pixels) // 2
        opened.draft(None, (side, side))  # a JPEG has fewer then; others ignore it
    if opened.width * opened.height > max_pixels:
        opened.close()
        raise InvalidInputError(
            f"{name} has {opened.width}×{opened.height} pixels, expected at most {max_pixels} "
            "in all: make the image smaller"
        )
    return opened


def _smaller(image: "Image") -> "Image":
    """Return a large image as a small one, by a whole factor; another as it is.

    It is converted in bands: a second copy of all its pixels would double the memory.
    """
    if image.width * image.height <= _LARGE:
        return image
    import PIL.Image

    side = math.isqrt(_LARGE)
    image.draft(None, (side, side))  # a JPEG's decoder can do it; others ignore it
    factor = math.ceil(math.sqrt(image.width * image.height / _LARGE))
    if factor == 1:
        return image
    deep = image.mode[0]
    mode = deep if deep in "IF" else "RGBA"
    small = PIL.Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    for top, bottom in _bands(image.width, image.height, factor):
        band = image.crop((0, top, image.width, bottom)).convert(mode)
        small.paste(band.reduce(factor), (0, top // factor))
    turned = PIL.Image.Exif()
    turned[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    small.info["exif"] = turned.tobytes()
    return small


def _bands(width: int, height: int, factor: int) -> Iterator[tuple[int, int]]:
    """Return first and last row of each band; all but the last have a multiple of `factor`."""
    rows = max(1, _BAND // (width * factor)) * factor
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _grey(image: "Image") -> Grey:
    if image.mode.startswith(("I", "F")):  # deeper than 8 bits: scaled by their own maximum
        deep = np.asarray_chkfinite(image, dtype=np.float32)
        highest = float(deep.max(initial=1.0))
        # Cameras and scanners store 10, 12 or 14 bits in 16: the lowest depth that fits.
        top = 2.0 ** max(8, int(highest).bit_length()) - 1 if image.mode[0] == "I" else highest
        return _clipped(deep / np.float32(top))
    # Transparency is paper: white unless the strokes are white themselves.
    coloured = image.convert("RGBA")
    values = np.asarray(coloured.convert("L"), dtype=np.float32) / np.float32(255)
    alpha = np.asarray(coloured.getchannel("A"), dtype=np.float32) / np.float32(255)
    if alpha.min(initial=1) == 1:
        return values
    ink = float((values * alpha).sum() / max(float(alpha.sum()), 1.0))
    paper = np.float32(0 if ink > 0.5 else 1)
    return _clipped(values * alpha + paper * (1 - alpha))


def _border(grey: Grey) -> Grey:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _stretched(grey: Grey) -> Grey:
    paper = np.float32(np.median(_border(grey)))
    contrast = max(float(grey.max()) - float(paper), 1 / 255)
    return _clipped((grey - paper) / np.float32(contrast))


def _cropped(grey: Grey) -> Grey:
    rows = np.flatnonzero((grey > _INK).any(axis=1))
    columns = np.flatnonzero((grey > _INK).any(axis=0))
    if not rows.size:
        return grey
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centred(drawing: Grey, height: int, width: int) -> Grey:
    # MNIST leaves 4 of 28 pixels free on each side; tiny inputs have none to spare.
    free = 8 / 28 if min(height, width) >= 16 else 0.0
    scale = min(height / drawing.shape[0], width / drawing.shape[1]) * (1 - free)
    small = _resized(
        drawing,
        max(1, min(height, round(drawing.shape[0] * scale))),
        max(1, min(width, round(drawing.shape[1] * scale))),
    )
    top, left = _offset(small, 0, height), _offset(small, 1, width)
    canvas = np.zeros((height, width), dtype=np.float32)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def _resized(grey: Grey, height: int, width: int) -> Grey:
    import PIL.Image

    image = PIL.Image.fromarray(np.ascontiguousarray(grey))
    resized = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return _clipped(np.asarray(resized))


def _clipped(values: npt.NDArray[Any]) -> Grey:
    clipped: Grey = np.clip(values, 0, 1).astype(np.float32, copy=False)
    return clipped


def _offset(drawing: Grey, axis: int, size: int) -> int:
    """Return where a drawing starts on an axis for its centre of mass to be in the middle."""
    mass = drawing.sum(axis=1 - axis)
    centre = float(mass @ (np.arange(mass.size) + 0.5)) / max(float(mass.sum()), 1e-9)
    return int(np.clip(round(size / 2 - centre), 0, size - mass.size))
