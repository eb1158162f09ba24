"""Learning rate schedules: the rate in force as a fraction of the recipe's learning rate."""

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "rate_fraction"]


def one_cycle(progress: float) -> float:
    """Return 1/25 rising to 1 at 30 %, then falling to 1/250,000, both along a cosine.

    Smith and Topin, Super-convergence (2018), with the proportions that PyTorch uses.
    """
    rise, first, last = 0.3, 1 / 25, 1 / 25 / 10_000
    if progress < rise:
        return _along_cosine(first, 1, progress / rise)
    return _along_cosine(1, last, (progress - rise) / (1 - rise))


def step_down(progress: float) -> float:
    """Return 1 in the first half, 0.1 in the third quarter, 0.01 in the last one."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def rate_fraction(schedule: str, warmup: float, progress: float) -> float:
    """Return the learning rate in force as a fraction of the recipe's.

    Args:
        schedule: A key of SCHEDULES.
        warmup: Fraction of the training in which the rate first rises linearly from 0.
        progress: From 0, the first step, to 1, the end of the training.
    """
    if progress < warmup:
        return progress / warmup
    return SCHEDULES[schedule]((progress - warmup) / (1 - warmup))


def _along_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: _along_cosine(1, 0, progress),
    "one_cycle": one_cycle,
    "step": step_down,
}
