"""Digits as hands draw them: strokes through points, distorted at random, on a pad of any size."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw

__all__ = ["STROKES", "Strokes", "distorted", "drawn"]

Stroke: TypeAlias = Sequence[tuple[float, float]]  # points (x, y) of 0 to 1, y downwards
Strokes: TypeAlias = Sequence[Stroke]

_PER_TURN = 24


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Stroke:
    """Points of an ellipse, from one angle to another in degrees, clockwise from the right."""
    count = max(4, round(abs(end - start) / 360 * _PER_TURN))
    turns = [math.radians(start + (end - start) * i / count) for i in range(count + 1)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


# Filling the unit square; `distorted` puts them somewhere.
STROKES: dict[int, Strokes] = {
    0: [_arc(0.5, 0.5, 0.36, 0.48, -80, 280)],
    1: [[(0.38, 0.18), (0.55, 0.02), (0.52, 0.98)]],
    2: [[*_arc(0.5, 0.28, 0.34, 0.26, 190, 390), (0.12, 0.95), (0.9, 0.96)]],
    3: [[*_arc(0.46, 0.26, 0.32, 0.24, 200, 450), *_arc(0.46, 0.73, 0.38, 0.25, -90, 160)]],
    4: [[(0.4, 0.04), (0.12, 0.58), (0.9, 0.56)], [(0.68, 0.2), (0.62, 0.98)]],
    5: [[(0.84, 0.04), (0.3, 0.05), (0.22, 0.46), *_arc(0.46, 0.68, 0.36, 0.3, 230, 510)]],
    6: [[(0.7, 0.03), (0.36, 0.34), *_arc(0.48, 0.7, 0.3, 0.28, 190, 560)]],
    7: [[(0.12, 0.08), (0.88, 0.06), (0.42, 0.97)]],
    8: [[*_arc(0.5, 0.26, 0.28, 0.24, 90, 450), *_arc(0.5, 0.74, 0.34, 0.24, -90, 270)]],
    9: [[*_arc(0.48, 0.3, 0.3, 0.28, 10, -350), (0.78, 0.34), (0.66, 0.97)]],
}


def distorted(label: int, rng: np.random.Generator) -> Strokes:
    """Return a digit of random size, place, slant and proportions, with an unsteady hand."""
    size, width = rng.uniform(0.35, 0.85), rng.uniform(0.5, 0.85)
    turn, slant = math.radians(rng.uniform(-10, 10)), rng.uniform(-0.15, 0.25)
    scale = size * np.array([[width, 0], [0, 1]])
    lean = np.array([[1, 0], [-slant, 1]])  # points are rows
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    strokes = []
    for stroke in STROKES[label]:
        shaky = np.array(stroke) - 0.5 + rng.normal(0, 0.012, (len(stroke), 2))
        strokes.append(shaky @ scale @ lean @ rotation)
    points = np.concatenate(strokes)
    low, high = 0.05 - points.min(axis=0), 0.95 - points.max(axis=0)
    place = rng.uniform(low, np.maximum(low, high))
    return [[(float(x), float(y)) for x, y in stroke + place] for stroke in strokes]


def drawn(strokes: Strokes, side: int, pen: int) -> NDArray[np.uint8]:
    """Return white strokes on black, `[side, side]`, as a pad draws them."""
    image = PIL.Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for stroke in strokes:
        points = [(x * side, y * side) for x, y in stroke]
        draw.line(points, 255, pen, joint="curve")
        for x, y in points:  # round ends
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), 255)
    return np.asarray(image)
