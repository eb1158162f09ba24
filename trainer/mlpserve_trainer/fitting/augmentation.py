"""Augmentation: every time a picture is trained on, it is bent a little, and differently.

A warp is a displacement of every pixel: a random affine map (shift, rotation, scaling, shear)
and an elastic distortion, read off by bilinear interpolation. A few pictures of a batch share
one warp, which makes its arithmetic cheap and turns the interpolation into copies of short
rows; the next batch has other warps and other company.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.recipe import Recipe

__all__ = ["Move", "Warp", "augmentation_for"]

Floats = npt.NDArray[np.float32]

# Pictures that share a warp: one cache line of float32.
GROUP = 16
# The width of an elastic bend, as a share of the picture: 4 pixels of 28, as in Simard et al.
ELASTIC_WIDTH = 1 / 7
# The side of the pictures that a recipe's pixels are meant for: MNIST's.
SIDE = 28


def augmentation_for(recipe: Recipe, examples: Examples, most_rows: int) -> "Move | Warp":
    """Return what gathers pictures (n, height, width) as the recipe wants them bent.

    `most_rows` is how many are asked for at once, at most.
    """
    bends = recipe.rotation or recipe.scaling or recipe.shear or recipe.elastic
    only_moves = not bends and recipe.shift * _unit(examples) <= 1
    return (Move if only_moves else Warp)(recipe, examples, most_rows)


class Move:
    """Gathers rows of pictures, each group of them moved by at most a pixel.

    A warp without bends comes to the same pixels, and takes six times as long: here every pixel
    goes some way towards its neighbour in place, across, then down.
    """

    def __init__(self, recipe: Recipe, examples: Examples, most_rows: int) -> None:
        self._shape, self._shift = examples.inputs.shape[1:], recipe.shift * _unit(examples)
        self._pictures, self._factor = _flat(examples)
        pixels = self._pictures.shape[1]
        self._raw = np.empty((most_rows, pixels), self._pictures.dtype)
        self._difference = np.empty(GROUP * pixels, np.float32)

    def __call__(self, out: Floats, rows: npt.NDArray[np.intp], rng: np.random.Generator) -> None:
        """Fill `out` (n, pixels) with these pictures, moved."""
        raw = self._raw[: len(rows)]
        np.take(self._pictures, rows, axis=0, out=raw, mode="clip")
        np.multiply(raw, self._factor, out=out)
        starts = range(0, len(rows), GROUP)
        moves = rng.uniform(-self._shift, self._shift, (len(starts), 2)).tolist()
        for start, (across, down) in zip(starts, moves, strict=True):
            group = out[start : start + GROUP]
            pictures = group.reshape(-1, *self._shape)
            self._go(group, 1, across, pictures[:, :, -1 if across > 0 else 0])
            self._go(group, self._shape[1], down, pictures[:, -1 if down > 0 else 0])

    def _go(self, group: Floats, stride: int, step: float, edge: Floats) -> None:
        """Let every pixel but the edge's go `step` of the way to the one `stride` further."""
        kept, flat = edge.copy(), group.reshape(-1)
        near, far = flat[:-stride], flat[stride:]
        difference = self._difference[: len(near)]
        np.subtract(far, near, out=difference)
        np.multiply(difference, abs(step), out=difference)
        if step > 0:
            np.add(near, difference, out=near)
        else:
            np.subtract(far, difference, out=far)
        edge[...] = kept  # what was next to it in memory is no neighbour


class Warp:
    """Gathers rows of pictures, each group of them warped.

    After Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied
    to visual document analysis (2003), section 2.

    How far says the recipe, in `shift`, `rotation`, `scaling`, `shear` and `elastic`; the pixels
    in it are 28ths of the picture's shorter side, so that small pictures are bent no further.
    """

    def __init__(self, recipe: Recipe, examples: Examples, most_rows: int) -> None:
        self._recipe, self._shape = recipe, examples.inputs.shape[1:]
        self._pictures, self._factor = _flat(examples)
        groups, pixels = math.ceil(most_rows / GROUP), self._pictures.shape[1]
        self._raw = np.empty((groups, GROUP, pixels), self._pictures.dtype)
        self._source = np.empty((groups, pixels, GROUP), np.float32)
        self._corner = np.empty((groups, pixels, GROUP), np.float32)
        self._sum = np.empty((groups, pixels, GROUP), np.float32)
        self._blur = _blur(self._shape[0]), _blur(self._shape[1])
        unit = _unit(examples)
        self._shift, self._bend = np.float32(recipe.shift * unit), np.float32(recipe.elastic * unit)

    def __call__(self, out: Floats, rows: npt.NDArray[np.intp], rng: np.random.Generator) -> None:
        """Fill `out` (n, pixels) with these pictures, warped; the last group may be short."""
        if not len(rows):  # the share of one who has none in a short batch
            return
        groups = math.ceil(len(rows) / GROUP)
        whole = np.resize(rows, groups * GROUP)
        raw, source = self._raw[:groups], self._source[:groups]
        np.take(self._pictures, whole, axis=0, out=raw.reshape(len(whole), -1), mode="clip")
        np.multiply(raw.transpose(0, 2, 1), self._factor, out=source)
        self._interpolate(source, *self._places(groups, rng))
        warped = self._sum[:groups].transpose(0, 2, 1)
        end = len(rows) // GROUP * GROUP
        np.copyto(out[:end].reshape(-1, *warped.shape[1:]), warped[: len(rows) // GROUP])
        if end < len(rows):
            np.copyto(out[end:], warped[-1, : len(rows) - end])

    def _places(self, groups: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return where each pixel of each group is read from: rows and columns (groups, pixels)."""
        height, width = self._shape
        middle = np.array([[height - 1], [width - 1]], np.float32) / 2
        y, x = np.indices(self._shape, np.float32).reshape(2, -1) - middle
        (a, b), (c, d) = _affine(self._recipe, groups, rng)
        shift = rng.uniform(-1, 1, (2, groups, 1)).astype(np.float32) * self._shift
        from_y, from_x = a * y + b * x + shift[0] + middle[0], c * y + d * x + shift[1] + middle[1]
        if self._bend:
            bend = self._elastic(groups, rng)
            from_y, from_x = from_y + bend[0], from_x + bend[1]
        return np.clip(from_y, 0, height - 1), np.clip(from_x, 0, width - 1)

    def _elastic(self, groups: int, rng: np.random.Generator) -> Floats:
        """Smoothed noise: displacements (2, groups, pixels), as far as `elastic` says."""
        noise = rng.standard_normal((2, groups, *self._shape), dtype=np.float32)
        down, across = self._blur
        bend = (down @ noise @ across.T) * self._bend
        return bend.reshape(2, groups, -1).astype(np.float32, copy=False)

    def _interpolate(self, source: Floats, from_y: Floats, from_x: Floats) -> None:
        """Leave the weighted sum of each place's four neighbours in the buffer of sums."""
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
    """How long a pixel of the recipe's is in these pictures."""
    return float(min(examples.inputs.shape[1:]) / SIDE)


def _flat(examples: Examples) -> tuple[npt.NDArray[Any], np.float32]:
    """The pictures as rows (n, pixels), and the factor that makes them reach from 0 to 1."""
    rows = examples.inputs.reshape(len(examples), -1)
    return rows, np.float32(1 / examples.input_maximum if rows.dtype == np.uint8 else 1)


def _affine(recipe: Recipe, groups: int, rng: np.random.Generator) -> Floats:
    """Draw matrices (2, 2, groups, 1): rotation · shear · scaling, each within its bounds."""
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
    """Return the matrix (size, size) of a Gaussian blur that keeps the variance of noise."""
    places = np.arange(size)
    distance = (places[:, None] - places) / (size * ELASTIC_WIDTH)
    kernel = np.exp(-0.5 * distance**2)
    rows: Floats = (kernel / np.linalg.norm(kernel, axis=1, keepdims=True)).astype(np.float32)
    return rows
