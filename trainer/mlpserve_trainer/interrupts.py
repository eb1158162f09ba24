"""SIGTERM as Ctrl-C: what stops a service stops a training as cleanly as a person does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["terminable"]


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM do whatever SIGINT does at that moment."""
    # Only the main thread may set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
