"""Several works side by side, on threads that meet at every `yield`.

NumPy lets go of Python's lock in its loops and in BLAS, so threads are enough. A step meets
thousands of times a second, and the others are a few microseconds away then: asking again and
again for a moment costs a tenth of what it costs to be woken up.
"""

import contextvars
import os
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias

__all__ = ["Work", "cores", "in_turns", "side_by_side"]

# What one member does; it yields where all have to come that far before any goes on.
Work: TypeAlias = Iterator[None]

# How often a member asks for the others before it sleeps until they come: some 50 µs.
ASKS = 60


def cores() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system can say
        return os.cpu_count() or 1


def in_turns(works: Sequence[Work]) -> None:
    """Do all of the works on this thread, one after the other between two meetings."""
    unfinished = list(works)
    while unfinished:
        unfinished = [work for work in unfinished if next(work, work) is None]


def side_by_side(works: Sequence[Work]) -> None:
    """Do each of the works on a thread of its own, the first on this one.

    What one of them raises is raised here; the others end at their next meeting. The threads
    have ended, in any case, when this returns.
    """
    meetings = _Meetings(len(works))
    failures: list[BaseException] = []

    def do(member: int) -> None:
        try:
            for _ in works[member]:
                if not meetings.wait(member):
                    return
        finally:
            meetings.leave(member)

    def do_elsewhere(member: int) -> None:
        try:
            do(member)
        except BaseException as error:  # raised again below, for whoever asked for the works
            failures.append(error)

    # In this thread's context, which says what NumPy does about overflow.
    threads = [
        Thread(
            target=contextvars.copy_context().run,
            args=(do_elsewhere, member),
            name=f"mlpserve-team-{member}",
            daemon=True,
        )
        for member in range(1, len(works))
    ]
    try:
        for thread in threads:
            thread.start()
        do(0)
    finally:
        meetings.leave(0)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[0]


class _Meetings:
    """Where members wait for one another: a queue from each to each."""

    def __init__(self, members: int) -> None:
        # queues[a][b] holds what a was told by b: True came to the meeting, False left.
        self._queues: list[dict[int, SimpleQueue[bool]]] = [
            {other: SimpleQueue() for other in range(members) if other != member}
            for member in range(members)
        ]

    def wait(self, member: int) -> bool:
        """Wait for all others; return whether they came."""
        self._tell(member, True)
        return all(_next(queue) for queue in self._queues[member].values())

    def leave(self, member: int) -> None:
        """Keep nobody waiting any longer."""
        self._tell(member, False)

    def _tell(self, member: int, comes: bool) -> None:
        for other in self._queues[member]:
            self._queues[other][member].put(comes)


def _next(queue: "SimpleQueue[bool]") -> bool:
    for _ in range(ASKS):
        if not queue.empty():
            break
        time.sleep(0)  # lets go of Python's lock
    return queue.get()
