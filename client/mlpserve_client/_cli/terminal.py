"""Pictures, bars, tables and progress in a terminal."""

import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_client._cli.text import encodable, printable
from mlpserve_client._results import Prediction

_SHADES = " .:-=+*#%@"
_BAR, _MIN_BAR = 24, 4  # characters
_BLOCK = "█"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # which take no room


def bar(share: float, width: int = _BAR) -> str:
    """Draw a share of 1 as a bar, in characters that standard output can encode."""
    return (_BLOCK if encodable(_BLOCK) else "#") * round(share * width)


def picture(values: npt.NDArray[Any]) -> list[str]:
    """Draw `[height, width]` in characters, each of which stands for two rows."""
    light = values.astype(np.float32) / max(float(values.max(initial=0)), 1e-9)
    if len(light) % 2:
        light = np.vstack([light, np.zeros_like(light[:1])])
    rows = np.maximum(light[::2], light[1::2])
    shades = np.rint(rows * (len(_SHADES) - 1)).astype(int)
    return ["".join(_SHADES[shade] for shade in row) for row in shades]


def as_text(prediction: Prediction, value: float) -> str:
    """Return a probability of an answer in percent, or a value of one without probabilities."""
    return f"{value:.6g}" if prediction.output_kind == "values" else f"{value:.2%}"


def bars(prediction: Prediction, beside: Sequence[str] = (), limit: int = 10) -> list[str]:
    """Draw the probabilities of the most probable classes, in the order of their labels.

    The bars are as long as the terminal has room for, beside a picture. Values above 1, which
    are no probabilities, are drawn as shares of the largest one.
    """
    shown = sorted(prediction.top(limit))
    whole = max(1.0, *(candidate.probability for candidate in shown))
    width = max(len(printable(candidate.name)) for candidate in shown)
    taken = max(map(len, beside), default=0) + 3 + width + len("  > 100.00%")
    length = min(_BAR, max(_MIN_BAR, shutil.get_terminal_size().columns - taken))
    return [
        f"{'>' if label == prediction.label else ' '} {printable(name):>{width}} "
        f"{bar(p / whole, length):{length}} {as_text(prediction, p):>7}"
        for label, name, p in shown
    ]


def beside(left: Sequence[str], right: Sequence[str]) -> str:
    """Put two blocks of lines side by side."""
    widths = [len(_COLOURS.sub("", line)) for line in left]
    width = max(widths, default=0)
    padded = [line + " " * (width - own) for line, own in zip(left, widths, strict=True)]
    lines = zip_longest(padded, right, fillvalue=None)
    return "\n".join(f"{a or ' ' * width}   {b or ''}".rstrip() for a, b in lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align columns."""
    everything = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    lines = (
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        for row in everything
    )
    return "\n".join(line.rstrip() for line in lines)


class Progress:
    """A progress line on a terminal; nothing where stderr is not a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._stream = sys.stderr if sys.stderr.isatty() else None
        self._started = time.monotonic()

    def show(self, done: int) -> None:
        """Show the number of rows done, the rate, and the time left."""
        if self._stream is None:
            return
        rate = done / max(time.monotonic() - self._started, 1e-9)
        share = done / max(self.total, 1)
        left = (self.total - done) / max(rate, 1e-9)
        end = "\n" if done >= self.total else ""
        figures = f"{share:4.0%} {done}/{self.total} {rate:,.0f}/s {left:.0f} s left "
        text = f"\r{bar(share):{_BAR}} {figures}"
        self._stream.write(text + end)
        self._stream.flush()
