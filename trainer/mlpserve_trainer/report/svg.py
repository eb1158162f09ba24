"""Charts as SVG: the plane of two axes, and what is drawn in it.

Lines and text take the colour of the surrounding text, for light pages, dark ones and paper.
Lengths are in pixels of the chart, which a page scales to its width.
"""

import html
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FONT_SIZE", "INK", "Axes", "chart", "line", "nice_ticks", "text", "text_width"]

FONT_SIZE = 11.0
INK = "currentColor"
MAX_POINTS = 500  # of a line: more lie closer together than pixels do

Interval = tuple[float, float]
Ticks = Sequence[tuple[float, str]]  # where, and what is written there
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Axes:
    """The plane of a chart: the intervals of x and y, and where on the page they lie.

    * `x`, `y`: the intervals of the data.
    * `width`, `height`: of the plane.
    * `left`, `bottom`, `top`: the margins around it, for labels and title.
    """

    x: Interval
    y: Interval
    width: float
    height: float
    left: float = 48.0
    bottom: float = 40.0
    top: float = 24.0

    def across(self, value: float) -> float:
        """Return the distance of an x from the left edge of the chart."""
        return self.left + self.width * ((value - self.x[0]) / (self.x[1] - self.x[0]))

    def down(self, value: float) -> float:
        """Return the distance of a y from the upper edge of the chart."""
        return self.top + self.height * ((self.y[1] - value) / (self.y[1] - self.y[0]))

    def frame(self, x_label: str, y_label: str, x: Ticks, y: Ticks, grid: bool = True) -> str:
        """Draw the axes with their labels and ticks, and lines at the ticks."""
        low, right = self.top + self.height, self.left + self.width
        parts = [_segment(self.left, self.top, self.left, low, 0.5)]
        parts += [_segment(self.left, low, right, low, 0.5)]
        size = min(FONT_SIZE, 0.9 * self.width / max(len(x), len(y), 1))
        turned = max((len(label) for _, label in x), default=0) * len(x) * size > 1.5 * self.width
        for value, label in x:
            at = self.across(value)
            parts.append(_segment(at, self.top, at, low, 0.15) if grid else "")
            anchor = "end" if turned else "middle"
            place = (at + size / 3, low + 6) if turned else (at, low + size + 4)
            parts.append(text(*place, label, anchor=anchor, turned=turned, size=size))
        for value, label in y:
            at = self.down(value)
            parts.append(_segment(self.left, at, right, at, 0.15) if grid else "")
            parts.append(text(self.left - 6, at + size / 3, label, anchor="end", size=size))
        parts.append(text(self.left + self.width / 2, low + self.bottom - 6, x_label))
        parts.append(text(FONT_SIZE, self.top + self.height / 2, y_label, turned=True))
        return "".join(parts)


def chart(axes: Axes, title: str, parts: Iterable[str]) -> str:
    """Return an SVG element of these parts; its title is read aloud, not shown."""
    width, height = axes.left + axes.width + 12, axes.top + axes.height + axes.bottom
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif">{"".join(parts)}</svg>'
    )


def line(
    axes: Axes, x: Numbers, y: Numbers, colour: str, markers: bool = False, dashed: bool = False
) -> str:
    """Draw a line through points, with a dot at each where markers are wanted."""
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).astype(np.int64))
    points = [
        f"{axes.across(a):.1f},{axes.down(b):.1f}" for a, b in zip(x[shown], y[shown], strict=True)
    ]
    dashes = ' stroke-dasharray="2 3"' if dashed else ""
    drawn = f'<polyline fill="none" stroke="{colour}" stroke-width="1.5"{dashes} points="'
    drawn += f'{" ".join(points)}"/>'
    if markers:
        dots = "".join(f"M{point}h0" for point in points)
        drawn += f'<path stroke="{colour}" stroke-width="4" stroke-linecap="round" d="{dots}"/>'
    return drawn


def text(
    x: float,
    y: float,
    content: str,
    anchor: str = "middle",
    turned: bool = False,
    size: float = FONT_SIZE,
    colour: str = INK,
) -> str:
    """Write a line of text at its baseline, upwards if it is turned."""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:.3g}" '
        f'fill="{colour}"{turn}>{html.escape(content)}</text>'
    )


def text_width(content: str) -> float:
    """Return the width of a text at most, for the margin that it needs."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in content)
    return FONT_SIZE * (0.62 * len(content) + 0.4 * wide)


def nice_ticks(interval: Interval, integer: bool = False) -> Ticks:
    """Return the multiples of 1, 2 or 5 times a power of ten in an interval, three to seven."""
    low, high = interval
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = max(power * f for f in (1, 2, 5) if power * f <= (high - low) / 3)
    step = max(1.0, step) if integer else step
    values = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(value, _label(value, step)) for value in values]


def _label(value: float, step: float) -> str:
    if value == 0:
        return "0"
    if step >= 1 and abs(value) < 1e6:
        return f"{value:,.0f}"
    digits = math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9) + 1
    return f"{value:.{max(digits, 1)}g}"


def _segment(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    return (
        f'<path stroke="{INK}" stroke-opacity="{opacity:g}" '
        f'd="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}"/>'
    )
