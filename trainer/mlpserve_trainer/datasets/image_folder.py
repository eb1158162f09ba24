"""Data sets that people bring along: a folder with a folder of images for each class."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.files import memory_limit
from mlpserve_trainer.datasets.npz import PIXEL_MAXIMUM, LabelledRows
from mlpserve_trainer.errors import DataError, UsageError
from mlpserve_trainer.input_files import open_data

__all__ = ["has_classes", "read_images"]

# What a pixel takes while an image is read: in four colours, upright, and in grey.
_PIXEL_BYTES = 10
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def has_classes(folder: Path) -> bool:
    """Return True if some folder in this one holds images."""
    return any(_images(child) for child in _children(folder))


def read_images(folder: Path) -> LabelledRows:
    """Read every image of `folder/CLASS/` in grey; all must have the same size.

    Raises:
        UsageError: the package that reads images is not installed.
        DataError: there are no images, or one is damaged or has another size.

    """
    files = [(path, child.name) for child in _children(folder) for path in _images(child)]
    if not files:
        raise DataError(f"{folder}: expected a folder of images for each class, found none")
    limit = memory_limit()
    max_pixels = limit // _PIXEL_BYTES
    first = _read_image(files[0][0], max_pixels)
    needed = first.size * len(files)
    if needed > limit:
        raise DataError(f"{folder} needs {needed} bytes in memory, expected at most {limit}")
    inputs = np.empty((len(files), *first.shape), np.uint8)
    for row, (path, _) in enumerate(files):
        image = _read_image(path, max_pixels)
        if image.shape != first.shape:
            raise DataError(
                f"{plain(str(path))} is {image.shape[1]}×{image.shape[0]} pixels, expected "
                f"{first.shape[1]}×{first.shape[0]} as the first one has: bring all to one size"
            )
        inputs[row] = image
    labels = [_class_name(name) for _, name in files]
    return LabelledRows(inputs, np.array(labels, object), PIXEL_MAXIMUM, says_maximum=True)


def _children(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in visible if path.is_dir())


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _class_name(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _read_image(path: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Return the grey values (height, width), upright as a camera meant it.

    The header says how much memory the pixels take, whatever the size of the file. What has more
    than grey values of 8 bits, or has transparent pixels, would be read as something else.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise UsageError(
            "a folder of images needs Pillow: pip install '.[images]' in a checkout"
        ) from error
    try:
        with open_data(path) as file, warnings.catch_warnings():
            # An image of a great many pixels is refused, not warned of.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.width * image.height > max_pixels:
                    raise DataError(
                        f"{plain(str(path))} is {image.width}×{image.height} pixels, expected at "
                        f"most {max_pixels} in all: bring all to one size, made for the model"
                    )
                if image.mode.startswith(("I", "F")):
                    raise DataError(
                        f"{plain(str(path))} has pixels of more than 8 bits: bring all to 8 bits"
                    )
                if image.has_transparency_data and _least_alpha(image) < 255:
                    raise DataError(
                        f"{plain(str(path))} has transparent pixels: put all on a background"
                    )
                return np.asarray(ImageOps.exif_transpose(image).convert("L"))
    except DataError:
        raise
    except Exception as error:  # Pillow fails at damaged files in many ways
        raise DataError(f"{plain(str(path))} cannot be read as an image: {error}") from error


def _least_alpha(image: Any) -> int:
    """Return the alpha of the most transparent pixel, from 0 to 255."""
    return int(image.convert("RGBA").getchannel("A").getextrema()[0])
