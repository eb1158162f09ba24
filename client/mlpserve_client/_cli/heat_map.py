"""Attributions as blocks in a terminal: red for a class, blue against it, signs without colour."""

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_client._cli.text import encodable

__all__ = ["heat_map", "legend"]

# Of xterm's 256 colours, from little to much: greyish to full, visible on dark and light grounds.
_FOR, _AGAINST = (95, 131, 167, 196), (60, 61, 62, 27)
_SIGNS_FOR, _SIGNS_AGAINST = ".+*#", ",-=~"
_LEVELS = len(_FOR)
_UPPER, _LOWER = "▀", "▄"
_RESET = "\x1b[0m"


def heat_map(values: npt.NDArray[Any]) -> list[str]:
    """Draw `[height, width]` attributions; a character stands for two rows."""
    largest = max(float(np.abs(values).max(initial=0)), 1e-30)
    # Up to rounding: what counts least is left out, so that the eye finds what counts.
    levels = np.rint(values / largest * _LEVELS).astype(int)
    if len(levels) % 2:
        levels = np.vstack([levels, np.zeros_like(levels[:1])])
    draw = _coloured if _has_colour() else _signed
    return [
        "".join(draw(int(upper), int(lower)) for upper, lower in zip(*pair, strict=True))
        for pair in zip(levels[::2], levels[1::2], strict=True)
    ]


def legend() -> str:
    """Return what the blocks or signs of a heat map mean."""
    if not _has_colour():
        return f"for the class: {_SIGNS_FOR}   against it: {_SIGNS_AGAINST}"
    return f"{_mark(_LEVELS)} for the class   {_mark(-_LEVELS)} against it"


def _has_colour() -> bool:
    """Return True if standard output is a terminal whose user has not turned colours off."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":  # https://no-color.org
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def _signed(upper: int, lower: int) -> str:
    level = upper if abs(upper) >= abs(lower) else lower
    if not level:
        return " "
    return (_SIGNS_FOR if level > 0 else _SIGNS_AGAINST)[abs(level) - 1]


def _coloured(upper: int, lower: int) -> str:
    """Return a character for two pixels, of which those of level 0 show the ground."""
    if not (upper or lower):
        return " "
    if not encodable(_UPPER):
        return _mark(upper if abs(upper) >= abs(lower) else lower)
    if not upper:
        return f"\x1b[38;5;{_colour(lower)}m{_LOWER}{_RESET}"
    ground = f";48;5;{_colour(lower)}" if lower else ""
    return f"\x1b[38;5;{_colour(upper)}{ground}m{_UPPER}{_RESET}"


def _mark(level: int) -> str:
    return f"\x1b[48;5;{_colour(level)}m {_RESET}"


def _colour(level: int) -> int:
    return (_FOR if level > 0 else _AGAINST)[abs(level) - 1]
