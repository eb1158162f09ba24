"""The report's figures: curves and tables of colours as SVG, pictures as PNG.

Made with matplotlib, the plotting library that its readers know. Lines and text take the colour
of the text around them, so that a figure suits a light page, a dark one and paper.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.evaluation.calibration import Reliability
from mlpserve_trainer.fitting.state import TrainingState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["calibration_curve", "confusion_matrix", "learning_curves", "picture", "signed_picture"]

# Stands for the colour of the surrounding text until the SVG is written.
INK, FAINT = "#010203", "#040506"
BLUE, ORANGE = "#2f7ed8", "#e07b28"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "grid.alpha": 0.25,
    "grid.color": FAINT,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpserve",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def learning_curves(state: TrainingState) -> str:
    """Loss, validation accuracy and learning rate of every epoch, a figure each."""
    curves = (
        ("loss on training data", state.losses, ORANGE),
        ("accuracy on validation data", state.accuracies, BLUE),
        ("learning rate", state.learning_rates, INK),
    )
    return "".join(_curve(title, values, colour) for title, values, colour in curves)


def _curve(title: str, values: Sequence[float], colour: str) -> str:
    figure, axis = _figure(4.2, 3.2)
    epochs = range(1, len(values) + 1)
    # Markers show where a single epoch is, and would hide a long curve.
    axis.plot(epochs, values, color=colour, marker="o" if len(values) < 30 else None, ms=3)
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, f"{title}, by epoch")


def confusion_matrix(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    """How often each class (rows) was taken for each (columns): (classes, classes)."""
    figure, axis = _figure(5.6, 5.2)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The root makes single mistakes visible beside thousands of right answers.
    axis.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(class_names))
    axis.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    axis.set_xticklabels(class_names, rotation=90 if max(map(len, class_names)) > 3 else 0)
    axis.set_yticklabels(class_names)
    axis.grid(visible=False)
    if len(class_names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.3 else "#102030"
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
                axis.text(column, row, str(count), color=colour, **place)
    return _svg(figure, "confusion matrix")


def calibration_curve(raw: Reliability, calibrated: Reliability) -> str:
    """Draw accuracy against confidence, without and with temperature scaling."""
    fewest = 10  # rows that a point stands for: fewer say nothing about their accuracy
    figure, axis = _figure(5.6, 5.2)
    axis.plot([0, 1], [0, 1], color=FAINT, linestyle=":", label="perfect")
    for bins, label, colour in ((raw, "raw", ORANGE), (calibrated, "calibrated", BLUE)):
        some = bins.rows >= fewest
        axis.plot(
            bins.confidence[some], bins.accuracy[some], color=colour, marker="o", ms=4, label=label
        )
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False, labelcolor=INK)
    return _svg(figure, "accuracy against confidence")


def picture(values: npt.NDArray[Any]) -> str:
    """A picture (height, width) from 0, black, to 1, white, as a data URI."""
    return _png(values, "gray", 0.0, 1.0)


def signed_picture(values: npt.NDArray[Any]) -> str:
    """A picture (height, width) of values around 0, blue below and red above, as a data URI."""
    most = float(np.abs(values).max()) or 1.0
    return _png(values, "RdBu_r", -most, most)


def _figure(width: float, height: float) -> tuple["Figure", Any]:
    """A figure of its own, without pyplot, which keeps a global list of all; sizes in inches."""
    # Imported here: half a second that no other command needs.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots()


def _svg(figure: "Figure", title: str) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _png(values: npt.NDArray[Any], colours: str, low: float, high: float) -> str:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, values, cmap=colours, vmin=low, vmax=high, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
