"""Signals as bytes in a socket, whichever thread receives them."""

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["signals_as_bytes"]


@contextmanager
def signals_as_bytes(numbers: Iterable[signal.Signals]) -> Iterator[socket.socket]:
    """Yield a socket from which the numbers of these signals can be read, one byte each.

    Python runs a signal handler in the main thread only. The system may deliver the signal to any
    thread, which does not wake a main thread that waits for a lock. The interpreter writes these
    bytes at once. Use it in the main thread.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno())
        # The interpreter writes a byte only for signals that have a handler.
        handlers = {n: signal.signal(n, lambda number, frame: None) for n in numbers}
        try:
            yield reader
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
            signal.set_wakeup_fd(before)
