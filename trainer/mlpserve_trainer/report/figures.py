"""Figures of a report: curves and matrices as SVG, images as PNG in data URIs.

Drawn here and not by a plotting library: one takes longer to import and to lay out five figures
than a small network takes to train, and has fonts, settings files and caches to keep away from.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.evaluation.calibration import Reliability
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.report import png
from mlpserve_trainer.report.svg import (
    FONT_SIZE,
    INK,
    Axes,
    chart,
    line,
    nice_ticks,
    text,
    text_width,
)

__all__ = ["calibration_curve", "confusion_matrix", "learning_curves", "picture", "signed_picture"]

BLUE, ORANGE = "#2f7ed8", "#e07b28"
MATRIX_BLUE = (8, 69, 148)
MATRIX_SIDE = 300.0  # pixels
MIN_ROWS = 10  # of a point in the calibration curve: fewer say little about the accuracy
MAX_COUNTED = 20  # classes whose matrix has a number in each cell
MAX_MARKED = 30  # epochs: markers show single ones, and would hide a long curve
MAX_LABEL = 24  # characters

picture, signed_picture = png.grey, png.signed


def learning_curves(state: TrainingState) -> str:
    """Draw loss, validation accuracy and learning rate by epoch, a figure each."""
    if not state.losses:
        return "<p>The network was trained elsewhere.</p>"
    curves = (
        ("loss on training data", state.losses, ORANGE),
        ("accuracy on validation data", state.accuracies, BLUE),
        ("learning rate", state.learning_rates, INK),
    )
    return "".join(_curve(title, values, colour) for title, values, colour in curves)


def _curve(title: str, values: Sequence[float], colour: str) -> str:
    x, y = np.arange(1.0, len(values) + 1), np.array(values, np.float64)
    ticks = nice_ticks(_around(y))
    left = 10 + max(text_width(label) for _, label in ticks)
    axes = Axes(_around(x), _around(y), width=240, height=160, left=left)
    frame = axes.frame("epoch", "", nice_ticks(axes.x, integer=True), ticks)
    heading = text(axes.left + axes.width / 2, axes.top - 8, title, size=FONT_SIZE + 1)
    drawn = line(axes, x, y, colour, markers=len(values) < MAX_MARKED)
    return chart(axes, f"{title}, by epoch", (frame, heading, drawn))


def _around(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of values with a margin of a twentieth, or of one where all are equal."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def confusion_matrix(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    """Draw how often each class (rows) was predicted as each other (columns).

    Args:
        counts: (k, k) rows of the holdout.
        class_names: The names of the k classes.
    """
    size, names = len(class_names), [_label(name) for name in class_names]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    margin = 34 + max(map(text_width, names))
    side, edges = MATRIX_SIDE, (-0.5, size - 0.5)
    axes = Axes(edges, edges[::-1], side, side, left=margin, bottom=margin, top=8)
    # The square root makes single mistakes visible beside thousands of right answers.
    image = png.shares_of(MATRIX_BLUE, np.sqrt(shares))
    cells = (
        f'<image x="{axes.left:.1f}" y="{axes.top:.1f}" width="{side:g}" height="{side:g}" '
        f'preserveAspectRatio="none" style="image-rendering: pixelated" href="{image}"/>'
    )
    ticks = list(enumerate(names))
    frame = axes.frame("predicted", "true", ticks, ticks, grid=False)
    numbers = _numbers(axes, counts, shares) if size <= MAX_COUNTED else ""
    return chart(axes, "confusion matrix", (cells, frame, numbers))


def _numbers(axes: Axes, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> str:
    def number(row: int, column: int) -> str:
        colour = "white" if shares[row, column] > 0.25 else INK
        place = axes.across(column), axes.down(row) + 3
        return text(*place, str(counts[row, column]), size=9, colour=colour)

    return "".join(number(row, column) for row, column in np.argwhere(counts).tolist())


def calibration_curve(raw: Reliability, calibrated: Reliability) -> str:
    """Draw accuracy against confidence, before and after calibration."""
    axes = Axes((0, 1), (0, 1), MATRIX_SIDE, MATRIX_SIDE, top=8)
    ticks = nice_ticks((0, 1))
    ends = np.array([0.0, 1.0])
    parts = [axes.frame("confidence", "accuracy", ticks, ticks)]
    parts += [line(axes, ends, ends, INK, dashed=True), _legend(axes, 0, "perfect", INK)]
    curves = ((raw, "raw", ORANGE), (calibrated, "calibrated", BLUE))
    for place, (bins, name, colour) in enumerate(curves, start=1):
        some = bins.rows >= MIN_ROWS
        if some.any():
            points = bins.confidence[some], bins.accuracy[some]
            parts.append(line(axes, *points, colour, markers=True))
        parts.append(_legend(axes, place, name, colour))
    return chart(axes, "accuracy against confidence", parts)


def _legend(axes: Axes, place: int, name: str, colour: str) -> str:
    y = axes.top + 14 + 16 * place
    sample = f'<path stroke="{colour}" stroke-width="1.5" d="M{axes.left + 10:.1f},{y:.1f}h18"/>'
    return sample + text(axes.left + 34, y + FONT_SIZE / 3, name, anchor="start")


def _label(name: str) -> str:
    """Return a class name as a short line; an SVG must not contain control characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return shown if len(shown) <= MAX_LABEL else f"{shown[: MAX_LABEL - 1]}…"
