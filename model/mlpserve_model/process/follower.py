"""Threads that follow something, and continue after a failure."""

import logging
import threading
from collections.abc import Callable

__all__ = ["Follower", "Guard", "Over"]

log = logging.getLogger(__name__)


class Over(Exception):
    """Raised by a follower's `poll` to end the thread: there is nothing left to follow."""


class Guard:
    """Logs and counts the failures of something that is repeated.

    Args:
        name: what is repeated, for the log.
        on_failure: called after each failure, to count it.

    """

    def __init__(self, name: str, on_failure: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._on_failure = on_failure
        self._last = ""

    def run(self, act: Callable[[], object]) -> None:
        """Call `act`; count its failure, and log it unless it is the same as the last one.

        Raises:
            Over: `act` raised it.

        """
        try:
            act()
            self._last = ""
        except Over:
            raise
        except Exception as error:
            if repr(error) != self._last:
                self._last = repr(error)
                log.exception("a follower failed", extra={"follower": self._name})
            self._on_failure()


class Follower:
    """A thread that calls `poll` repeatedly until it is stopped, whatever a call raises.

    Args:
        name: what is followed, for the log and the name of the thread.
        poll: what is called; it may raise Over to end the thread.
        pause: seconds between two calls.
        on_failure: called after each failed call, to count it.
        on_end: called when the thread ends although it was not stopped.

    """

    def __init__(
        self,
        name: str,
        poll: Callable[[], object],
        pause: float,
        on_failure: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._poll = poll
        self._pause = pause
        self._guard = Guard(name, on_failure)
        self._on_end = on_end
        self._delay = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow-{name}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs, or was stopped on purpose."""
        return self._thread.is_alive() or self._stopping.is_set()

    def start(self, delay: float = 0.0) -> None:
        """Start the thread; the first call comes after `delay` seconds."""
        self._delay = delay
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; return at once."""
        self._stopping.set()

    def join(self) -> None:
        """Stop the thread and wait until it has ended."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            wait = self._delay
            while not self._stopping.wait(wait):
                self._guard.run(self._poll)
                wait = self._pause
        except Over:
            self._stopping.set()
        except BaseException as error:
            # SystemExit in a thread, or a failure of the guard itself, would pass unnoticed.
            log.error("a follower ended", exc_info=error, extra={"follower": self.name})
        finally:
            if not self._stopping.is_set():
                self._on_end()
