"""Signals as bytes in a socket, whichever thread takes them."""

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["signals_as_bytes"]


@contextmanager
def signals_as_bytes(numbers: Iterable[signal.Signals]) -> Iterator[socket.socket]:
    """Turn these signals into bytes to read from a socket: the number of each.

    A handler in Python runs when the main thread does. But any thread may take a signal, on a
    busy machine one that is just starting another, and then nothing wakes a main thread that
    waits for a lock. The interpreter writes these bytes at once. For the main thread alone.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno())
        # Without a handler no byte is written.
        handlers = {n: signal.signal(n, lambda number, frame: None) for n in numbers}
        try:
            yield reader
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
            signal.set_wakeup_fd(before)
