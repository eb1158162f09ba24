"""Several works that meet at every `yield`: side by side on threads, or in turns on one.

NumPy lets go of Python's lock in its loops and in BLAS, so threads are enough. A step meets
thousands of times a second, and the others are a few microseconds away then: asking again and
again for a moment costs a tenth of what it costs to be woken up. On a machine that is busy with
other things the threads wait for one another instead, and one alone is faster.
"""

import contextvars
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias

__all__ = ["Team", "Work", "cores", "in_turns", "side_by_side"]

# What one member does; it yields where all have to come that far before any goes on. All works
# of a team have as many meetings.
Work: TypeAlias = Iterator[None]
# Does works for so many meetings, or to their end; gives whether there is more to do.
Way: TypeAlias = Callable[[Sequence[Work], int | None], bool]

# How often a member asks for the others before it sleeps until they come: some 50 µs.
ASKS = 60
# Meetings before it is looked at how fast they were, and after how many such stretches the other
# way is tried.
STRETCH, STRETCHES = 128, 8


class Team:
    """Does works in whichever way is the faster one just now, by trying."""

    def __init__(self) -> None:
        # Seconds a meeting, when last tried. The first trial, in turns, pays for memory that nobody
        # has touched yet; the other way would be judged by it until it is tried again.
        self._pace: dict[Way, float] = {in_turns: 0.0, side_by_side: 0.0}
        self._stretches = 0

    def run(self, works: Sequence[Work]) -> None:
        """Do the works to their end; raises what they raise."""
        more = True
        while more:
            way, other = sorted(self._pace, key=self._pace.__getitem__)
            more = self._timed(way, works, STRETCH if self._pace[way] else TRIALS[way])
            self._stretches += 1
            if more and self._stretches % STRETCHES == 0:
                more = self._timed(other, works, TRIALS[other])

    def _timed(self, way: "Way", works: Sequence[Work], meetings: int) -> bool:
        started = time.perf_counter()
        more = way(works, meetings)
        self._pace[way] = (time.perf_counter() - started) / meetings
        return more


def cores() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system can say
        return os.cpu_count() or 1


def in_turns(works: Sequence[Work], meetings: int | None = None) -> bool:
    """Do all of the works on this thread, one after the other, for so many meetings or to the end.

    Returns whether there is more to do.
    """
    # Only a work that has ended gives something else than None.
    rounds = iter(lambda: {next(work, work) for work in works} == {None}, False)
    return sum(islice(rounds, meetings)) == meetings


def side_by_side(works: Sequence[Work], meetings: int | None = None) -> bool:
    """Do each of the works on a thread of its own, the first on this one, as `in_turns` does.

    What one of them raises is raised here; the others end at their next meeting. The threads
    have ended, in any case, when this returns.
    """
    meeting = _Meeting(len(works))
    failures: list[BaseException] = []

    def do(member: int) -> int:
        met = 0
        try:
            for _ in islice(works[member], meetings):
                met += 1
                if not meeting.wait(member):
                    break
        finally:
            meeting.leave(member)
        return met

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
        met = do(0)
    finally:
        meeting.leave(0)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[0]
    return met == meetings


# Meetings in a trial: it takes threads a while to start.
TRIALS: dict[Way, int] = {in_turns: 8, side_by_side: 64}


class _Meeting:
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
