"""Waiting for what must come true, instead of sleeping for as long as it usually takes."""

import time
from collections.abc import Callable
from typing import ParamSpec

__all__ = ["eventually"]

P = ParamSpec("P")

SECONDS = 20.0


def eventually(condition: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> None:
    """Wait until a condition holds for these arguments; fails the test after twenty seconds."""
    deadline = time.monotonic() + SECONDS
    while not condition(*args, **kwargs):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
