"""Figures of a report: curves and matrices as SVG, images as PNG in data URIs.

Made with matplotlib, whose settings are fixed here: a matplotlibrc, a backend named in the
environment or a dollar sign in a class name changes nothing. A figure that cannot be drawn is left
out. Lines and text take the colour of the surrounding text, for light pages, dark ones and paper.
"""

import base64
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.evaluation.calibration import Reliability
from mlpserve_trainer.fitting.state import TrainingState

__all__ = ["calibration_curve", "confusion_matrix", "learning_curves", "picture", "signed_picture"]

logger = logging.getLogger(__name__)

# Placeholders for the colour of the surrounding text, replaced when the SVG is written.
INK, FAINT = "#010203", "#040506"
BLUE, ORANGE = "#2f7ed8", "#e07b28"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 11,
    "grid.alpha": 0.25,
    "grid.color": FAINT,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpserve",
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
# Environment of the first import: no settings file, and the one backend that is always there.
ENVIRONMENT = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
# Of a figure whose labels are numbers: to fit margins to labels takes as long as to draw them.
MARGINS = {"left": 0.19, "right": 0.97, "bottom": 0.17, "top": 0.9}
MIN_ROWS = 10  # of a point in the calibration curve: fewer say little about the accuracy
MAX_COUNTED = 20  # classes whose matrix has a number in each cell
MAX_LABEL = 24  # characters
LEFT_OUT = "<p>This figure could not be drawn; the log of the training says why.</p>"

Draw = Callable[[Any], None]


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
    def draw(axis: Any) -> None:
        epochs = range(1, len(values) + 1)
        # Markers show single epochs, and would hide a long curve.
        axis.plot(epochs, values, color=colour, marker="o" if len(values) < 30 else None, ms=3)
        # At a fixed height: matplotlib measures all labels to place a title above them.
        axis.set_title(title, y=1.02)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)

    return _svg((4.2, 3.2), f"{title}, by epoch", draw)


def confusion_matrix(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    """Draw how often each class (rows) was predicted as each other (columns).

    Args:
        counts: (k, k) rows of the holdout.
        class_names: The names of the k classes.
    """
    names = [_label(name) for name in class_names]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axis: Any) -> None:
        # The square root makes single mistakes visible beside thousands of right answers.
        axis.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
        ticks = range(len(names))
        axis.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
        axis.set_xticklabels(names, rotation=90 if max(map(len, names)) > 3 else 0)
        axis.set_yticklabels(names)
        axis.grid(visible=False)
        if len(names) <= MAX_COUNTED:
            _write_counts(axis, counts, shares)

    return _svg((5.6, 5.2), "confusion matrix", draw, fits_margins=True)


def _write_counts(
    axis: Any, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "#102030"
            text = axis.text(column, row, str(count), color=colour, ha="center", va="center")
            text.set(fontsize=9, in_layout=False)  # inside the axes: the margins need not fit it


def calibration_curve(raw: Reliability, calibrated: Reliability) -> str:
    """Draw accuracy against confidence, before and after calibration."""

    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color=FAINT, linestyle=":", label="perfect")
        curves = ((raw, "raw", ORANGE), (calibrated, "calibrated", BLUE))
        for bins, label, colour in curves:
            some = bins.rows >= MIN_ROWS
            points = bins.confidence[some], bins.accuracy[some]
            axis.plot(*points, color=colour, marker="o", ms=4, label=label)
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        axis.legend(frameon=False, labelcolor=INK)

    return _svg((5.6, 5.2), "accuracy against confidence", draw)


def picture(values: npt.NDArray[Any]) -> str | None:
    """Return an image (height, width) of values from 0, black, to 1, white, as a data URI."""
    return _png(values, "gray", 0.0, 1.0)


def signed_picture(values: npt.NDArray[Any]) -> str | None:
    """Return an image of values around 0, blue below and red above, as a data URI."""
    maximum = float(np.abs(values).max()) or 1.0
    return _png(values, "RdBu_r", -maximum, maximum)


def _svg(size: tuple[float, float], title: str, draw: Draw, fits_margins: bool = False) -> str:
    """Return a figure of this size (inches) as an SVG element, or a sentence without one."""
    buffer = io.StringIO()
    try:
        with _fixed_settings():
            # Without pyplot, which keeps a global list of all figures, and without savefig, which
            # lays every figure out twice.
            from matplotlib.backends.backend_svg import FigureCanvasSVG
            from matplotlib.figure import Figure

            layout: Any = "constrained" if fits_margins else None
            figure = Figure(figsize=size, facecolor="none", layout=layout)
            axis = figure.subplots(gridspec_kw=None if fits_margins else MARGINS)
            axis.set_facecolor("none")
            draw(axis)
            canvas: Any = FigureCanvasSVG(figure)
            canvas.print_svg(buffer, metadata={"Date": None})
    except Exception as error:  # a version is worth more than a figure of its report
        logger.warning("a figure was left out", extra={"figure": title, "reason": str(error)})
        return LEFT_OUT
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _png(values: npt.NDArray[Any], colours: str, low: float, high: float) -> str | None:
    buffer = io.BytesIO()
    try:
        with _environment(ENVIRONMENT):
            from matplotlib import colormaps
            from PIL import Image

        # Not by matplotlib's imsave, which reads all settings for each picture.
        shares = (np.asarray(values, np.float64) - low) / (high - low)
        Image.fromarray(colormaps[colours](shares, bytes=True)).save(buffer, "png")
    except Exception as error:
        logger.warning("an image was left out", extra={"reason": str(error)})
        return None
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def _fixed_settings() -> Iterator[None]:
    """Draw with matplotlib's defaults and STYLE, whatever the environment and files say."""
    with _environment(ENVIRONMENT), warnings.catch_warnings():
        # A script that the font lacks is written as text all the same.
        warnings.simplefilter("ignore")
        # Imported here, because it takes half a second that no other command needs.
        import matplotlib as mpl

        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            yield


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _label(name: str) -> str:
    """Return a class name as a short line; an SVG must not contain control characters."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"
