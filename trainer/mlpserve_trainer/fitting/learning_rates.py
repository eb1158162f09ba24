"""Schedules: the learning rate as a share of the recipe's, from the first step to the end."""

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "rate_share"]


def one_cycle(progress: float) -> float:
    """Rise from a 25th in the first 30 %, then fall to a 10,000th of that, both along a cosine.

    Smith and Topin, Super-convergence (2018), with the proportions that PyTorch made usual.
    """
    rise, first, last = 0.3, 1 / 25, 1 / 25 / 10_000
    if progress < rise:
        return _along_cosine(first, 1, progress / rise)
    return _along_cosine(1, last, (progress - rise) / (1 - rise))


def step_down(progress: float) -> float:
    """A tenth after one half, a hundredth after three quarters."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def rate_share(schedule: str, warmup: float, progress: float) -> float:
    """Return the share of the rate in force.

    * `warmup`: the share of the training in which the rate first rises from 0 in a line.
    * `progress`: from 0, the first step, to 1, the end.
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
