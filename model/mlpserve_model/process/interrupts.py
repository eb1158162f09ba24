"""How signals end a training: SIGTERM as Ctrl-C, and neither while a version is published."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = [
    "STOP_SIGNALS",
    "block_signals",
    "ignore_sigint",
    "interrupted_afterwards",
    "interruptible_once",
    "sigterm_as_sigint",
    "uninterrupted",
]

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Treat SIGTERM as SIGINT, also if SIGINT is ignored.

    A shell script starts its background processes with SIGINT ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    # Only the main thread may set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def interruptible_once() -> None:
    """Let the first of STOP_SIGNALS interrupt this process, and ignore those that follow.

    A process that is stopped with its parent may receive two, from the terminal and the parent.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@contextmanager
def block_signals() -> Iterator[None]:
    """Block STOP_SIGNALS in this thread, and in processes that it starts until they unblock."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ignore_sigint() -> Iterator[None]:
    """Ignore Ctrl-C for the milliseconds in which a version is published and promoted."""
    with _handling_sigint(lambda *_: logger.warning("too late to interrupt: publishing")):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore a second Ctrl-C for the milliseconds in which the first one is answered."""
    with _handling_sigint(lambda *_: None):
        yield


@contextmanager
def interrupted_afterwards() -> Iterator[None]:
    """Let Ctrl-C wait until a file is written: what writes it may not know how to stop.

    Where SIGINT is ignored, a SIGTERM that stands for it still interrupts.
    """
    interrupted = threading.Event()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    with _handling_sigint(lambda *_: interrupted.set()):
        yield
    if interrupted.is_set():
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _handling_sigint(handler: Callable[..., Any]) -> Iterator[None]:
    # Only the main thread is ever interrupted, and only it may set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
