"""Signals as bytes in a socket: heard whichever thread takes them."""

import signal
import socket
from collections.abc import Iterable

__all__ = ["heard"]


def heard(numbers: Iterable[signal.Signals]) -> socket.socket:
    """Turn these signals, from now on, into bytes to read here: the number of each.

    A handler in Python runs when the main thread does. But any thread may take a signal, on a
    busy machine one that is just starting another, and then nothing wakes a main thread that
    waits for a lock. The interpreter writes these bytes at once. Only the main thread may call.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())  # open for as long as the process
    for number in numbers:
        signal.signal(number, lambda number, frame: None)  # without one no byte is written
    return reader
