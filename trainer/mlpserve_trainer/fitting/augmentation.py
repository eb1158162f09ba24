"""Augmentation: each time an image is trained on, it is distorted a little, at random.

A warp displaces every pixel: by a random affine map (shift, rotation, scaling, shear) and an
elastic distortion, with bilinear interpolation. GROUP images of a batch share one warp, so that
its arithmetic is done once and the interpolation copies short rows. Batches are drawn at random,
so an image shares its next warp with other images.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["Shift", "Warp", "augmentation_for"]

Floats = npt.NDArray[np.float32]

# Images that share a warp: 16 float32 values fill one cache line.
GROUP = 16
# Standard deviation of the elastic distortion's Gaussian, as a fraction of the image's side:
# 4 pixels of 28, as in Simard et al.
ELASTIC_WIDTH = 1 / 7
# Side of the images that the recipes' pixels refer to, which is MNIST's.
SIDE = 28


def augmentation_for(recipe: Recipe, examples: Examples, max_rows: int) -> "Shift | Warp":
    """Return the loader of images (n, height, width) that augments them as the recipe says.

    Args:
        recipe: Says which distortions, and how strong.
        examples: The images to load from.
        max_rows: Largest number of images in one call.
    """
    warps = recipe.rotation or recipe.scaling or recipe.shear or recipe.elastic
    only_shifts = not warps and recipe.shift * _unit(examples) <= 1
    return (Shift if only_shifts else Warp)(recipe, examples, max_rows)


class Shift:
    """Loads images, each group of them shifted by at most one pixel.

    A Warp gives the same pixels and takes six times as long. Here every pixel is interpolated
    with one neighbour in place, horizontally and then vertically.
    """

    def __init__(self, recipe: Recipe, examples: Examples, max_rows: int) -> None:
        self._shape, self._shift = examples.inputs.shape[1:], recipe.shift * _unit(examples)
        self._images, self._factor = _flat(examples)
        pixels = self._images.shape[1]
        self._raw = np.empty((max_rows, pixels), self._images.dtype)
        self._difference = np.empty(GROUP * pixels, np.float32)

    def __call__(self, out: Floats, rows: npt.NDArray[np.intp], rng: np.random.Generator) -> None:
        """Fill `out` (n, pixels) with these images, shifted."""
        raw = self._raw[: len(rows)]
        np.take(self._images, rows, axis=0, out=raw, mode="clip")
        np.multiply(raw, self._factor, out=out)
        starts = range(0, len(rows), GROUP)
        shifts = rng.uniform(-self._shift, self._shift, (len(starts), 2)).tolist()
        for start, (x, y) in zip(starts, shifts, strict=True):
            group = out[start : start + GROUP]
            images = group.reshape(-1, *self._shape)
            self._interpolate(group, 1, x, images[:, :, -1 if x > 0 else 0])
            self._interpolate(group, self._shape[1], y, images[:, -1 if y > 0 else 0])

    def _interpolate(self, group: Floats, stride: int, step: float, edge: Floats) -> None:
        """Mix every pixel but those of the edge with the one `stride` further, weighted `step`."""
        kept, flat = edge.copy(), group.reshape(-1)
        near, far = flat[:-stride], flat[stride:]
        difference = self._difference[: len(near)]
        np.subtract(far, near, out=difference)
        np.multiply(difference, abs(step), out=difference)
        if step > 0:
            np.add(near, difference, out=near)
        else:
            np.subtract(far, difference, out=far)
        edge[...] = kept  # its neighbour in memory is a pixel of another row or image


class Warp:
    """Loads images, each group of them with a warp of its own.

    After Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied
    to visual document analysis (2003), section 2.

    The recipe's `shift`, `rotation`, `scaling`, `shear` and `elastic` say how strong the warp is.
    Its pixels are 28ths of the image's shorter side, so small images are not distorted more.
    """

    def __init__(self, recipe: Recipe, examples: Examples, max_rows: int) -> None:
        self._recipe, self._shape = recipe, examples.inputs.shape[1:]
        self._images, self._factor = _flat(examples)
        groups, pixels = math.ceil(max_rows / GROUP), self._images.shape[1]
        self._raw = np.empty((groups, GROUP, pixels), self._images.dtype)
        self._source = np.empty((groups, pixels, GROUP), np.float32)
        self._corner = np.empty((groups, pixels, GROUP), np.float32)
        self._sum = np.empty((groups, pixels, GROUP), np.float32)
        self._blur = _blur(self._shape[0]), _blur(self._shape[1])
        unit = _unit(examples)
        self._shift, self._elastic_scale = (
            np.float32(recipe.shift * unit),
            np.float32(recipe.elastic * unit),
        )

    def __call__(self, out: Floats, rows: npt.NDArray[np.intp], rng: np.random.Generator) -> None:
        """Fill `out` (n, pixels) with these images, warped; the last group may be short."""
        if not len(rows):  # a short batch may leave none for the second shard
            return
        groups = math.ceil(len(rows) / GROUP)
        whole = np.resize(rows, groups * GROUP)
        raw, source = self._raw[:groups], self._source[:groups]
        np.take(self._images, whole, axis=0, out=raw.reshape(len(whole), -1), mode="clip")
        np.multiply(raw.transpose(0, 2, 1), self._factor, out=source)
        self._interpolate(source, *self._sources(groups, rng))
        warped = self._sum[:groups].transpose(0, 2, 1)
        end = len(rows) // GROUP * GROUP
        np.copyto(out[:end].reshape(-1, *warped.shape[1:]), warped[: len(rows) // GROUP])
        if end < len(rows):
            np.copyto(out[end:], warped[-1, : len(rows) - end])

    def _sources(self, groups: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return the source row and column (groups, pixels) of each pixel of each group."""
        height, width = self._shape
        middle = np.array([[height - 1], [width - 1]], np.float32) / 2
        y, x = np.indices(self._shape, np.float32).reshape(2, -1) - middle
        (a, b), (c, d) = _affine(self._recipe, groups, rng)
        shift = rng.uniform(-1, 1, (2, groups, 1)).astype(np.float32) * self._shift
        from_y, from_x = a * y + b * x + shift[0] + middle[0], c * y + d * x + shift[1] + middle[1]
        if self._elastic_scale:
            y, x = self._elastic(groups, rng)
            from_y, from_x = from_y + y, from_x + x
        return np.clip(from_y, 0, height - 1), np.clip(from_x, 0, width - 1)

    def _elastic(self, groups: int, rng: np.random.Generator) -> Floats:
        """Return smoothed noise (2, groups, pixels): vertical and horizontal displacements."""
        noise = rng.standard_normal((2, groups, *self._shape), dtype=np.float32)
        vertical, horizontal = self._blur
        smooth = (vertical @ noise @ horizontal.T) * self._elastic_scale
        return smooth.reshape(2, groups, -1).astype(np.float32, copy=False)

    def _interpolate(self, source: Floats, from_y: Floats, from_x: Floats) -> None:
        """Leave the weighted sum of each source's four neighbours in `self._sum`."""
        height, width = self._shape
        groups, pixels, _ = source.shape
        top = np.minimum(from_y.astype(np.intp), height - 2)
        left = np.minimum(from_x.astype(np.intp), width - 2)
        below, right = from_y - top.astype(np.float32), from_x - left.astype(np.float32)
        first = np.arange(groups)[:, None] * pixels + top * width + left
        flat, total = source.reshape(-1, GROUP), self._sum[:groups].reshape(-1, GROUP)
        corner = self._corner[:groups].reshape(-1, GROUP)
        np.take(flat, first.ravel(), axis=0, out=total, mode="clip")
        np.multiply(total, ((1 - below) * (1 - right)).reshape(-1, 1), out=total)
        for offset, weight in (
            (1, (1 - below) * right),
            (width, below * (1 - right)),
            (width + 1, below * right),
        ):
            np.take(flat, (first + offset).ravel(), axis=0, out=corner, mode="clip")
            np.multiply(corner, weight.reshape(-1, 1), out=corner)
            np.add(total, corner, out=total)


def _unit(examples: Examples) -> float:
    """Return the length of one of the recipe's pixels in pixels of these images."""
    return float(min(examples.inputs.shape[1:]) / SIDE)


def _flat(examples: Examples) -> tuple[npt.NDArray[Any], np.float32]:
    """Return the images as rows (n, pixels), and the factor that scales them to 0..1."""
    rows = examples.inputs.reshape(len(examples), -1)
    return rows, np.float32(1 / examples.input_maximum if rows.dtype == np.uint8 else 1)


def _affine(recipe: Recipe, groups: int, rng: np.random.Generator) -> Floats:
    """Return random matrices (2, 2, groups, 1): rotation · shear · scaling."""
    angle, shear, tall, wide = rng.uniform(-1, 1, (4, groups, 1)).astype(np.float32)
    angle = angle * np.float32(math.radians(recipe.rotation))
    shear = shear * np.float32(recipe.shear)
    tall, wide = 1 + tall * np.float32(recipe.scaling), 1 + wide * np.float32(recipe.scaling)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            np.stack([cos * tall, (cos * shear - sin) * wide]),
            np.stack([sin * tall, (sin * shear + cos) * wide]),
        ]
    )


def _blur(size: int) -> Floats:
    """Return the matrix (size, size) of a Gaussian blur that preserves the variance of noise."""
    positions = np.arange(size)
    distance = (positions[:, None] - positions) / (size * ELASTIC_WIDTH)
    kernel = np.exp(-0.5 * distance**2)
    rows: Floats = (kernel / np.linalg.norm(kernel, axis=1, keepdims=True)).astype(np.float32)
    return rows
