"""Waiting for what must come true, instead of sleeping for as long as it usually takes."""

import time
from collections.abc import Callable
from typing import ParamSpec

__all__ = ["SECONDS", "eventually", "wait_for"]

P = ParamSpec("P")

SECONDS = 20.0


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until a condition holds; return how long it took. Fails the test after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - started


def eventually(condition: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> None:
    """Wait until a condition holds for these arguments; fails the test after twenty seconds."""
    wait_for(lambda: condition(*args, **kwargs), SECONDS)
