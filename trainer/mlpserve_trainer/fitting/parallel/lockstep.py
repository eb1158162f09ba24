"""Several works that meet at every `yield`: side by side in processes, or in turns in one.

A step of a training meets thousands of times a second, after some forty calls of NumPy. Threads
would have to win Python's lock back after every one of those, and lose a quarter of their time
over it; forked processes have a lock each. What a work writes for others has to lie in `shared`
memory: everything else that it changes is gone with its process.
"""

import math
import mmap
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import combinations, islice
from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.errors import TeamBroken
from mlpserve_trainer.interrupts import held_back

__all__ = ["Team", "Work", "in_turns", "shared", "side_by_side"]

# What one member does; it yields where all have to come that far before any goes on. All works
# of a team have as many meetings.
Work: TypeAlias = Iterator[None]

# What each member has to each other one.
Lines: TypeAlias = dict[int, socket.socket]

# How often a member asks for another before it sleeps until that one comes: a fraction of a
# millisecond. To be woken up costs ten times what asking costs.
ASKS = 300
# Meetings that tell how fast it goes in turns, and after how many runs both ways are tried again.
TRIAL, RUNS = 8, 8
_HERE, _GONE = b"\1", b"\0"  # what members tell each other; the reason follows


class Team:
    """Does works in whichever way was the faster one lately: others may need the cores too.

    In turns where there is one core, or a system whose BLAS may not survive a fork.
    """

    def __init__(self) -> None:
        self._in_turns, self._side_by_side = 0.0, 0.0  # seconds a meeting; 0: try it
        self._runs = 0

    def run(self, works: Sequence[Work]) -> None:
        """Do the works to their end; raises what they raise, and TeamBroken."""
        if len(works) == 1 or cores() == 1 or sys.platform != "linux":
            in_turns(works)
            return
        if self._runs % RUNS == 0:
            started = time.perf_counter()
            if in_turns(works, TRIAL) < TRIAL:
                return
            self._in_turns, self._side_by_side = (time.perf_counter() - started) / TRIAL, 0.0
        self._runs += 1
        if self._side_by_side > self._in_turns:
            in_turns(works)
        else:
            started = time.perf_counter()
            meetings = side_by_side(works)
            self._side_by_side = (time.perf_counter() - started) / max(meetings, 1)


def cores() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system can say
        return os.cpu_count() or 1


def shared(*shape: int) -> npt.NDArray[np.float32]:
    """Return zeros that forked processes share; raises MemoryError."""
    count = math.prod(shape)
    try:
        memory = mmap.mmap(-1, max(count, 1) * 4)
    except OSError as error:
        raise MemoryError(f"{count * 4} bytes of shared memory: {error.strerror}") from error
    return np.frombuffer(memory, np.float32, count).reshape(shape)


def in_turns(works: Sequence[Work], meetings: int | None = None) -> int:
    """Do all works here, in turns, for so many meetings or to the end; return how many."""
    # Only a work that has ended gives something else than None.
    rounds = iter(lambda: {next(work, work) for work in works} == {None}, False)
    return sum(islice(rounds, meetings))


def side_by_side(works: Sequence[Work]) -> int:
    """Do each of the works to its end in a process of its own, the first here.

    Returns how many meetings there were. Raises what the first work raises, and TeamBroken for
    any other. Their processes have ended, in any case, when this returns.
    """
    members, children = range(len(works)), list[int]()
    with ExitStack() as stack:
        stack.callback(_see_the_end_of, children)  # when the lines are closed, which ends them
        lines: list[Lines] = [{} for _ in members]
        try:
            for one, other in combinations(members, 2):
                pair = socket.socketpair()
                lines[one][other], lines[other][one] = map(stack.enter_context, pair)
            # Signals to stop are for the first member alone, and stay held back in the others.
            with held_back():
                for member in members[1:]:
                    children.append(_fork() or _live(works[member], lines, member))
        except OSError as error:
            raise TeamBroken(f"no second process to train with: {error.strerror}") from error
        _keep(lines, 0)
        try:
            return _attend(works[0], lines[0])
        except BaseException:
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            raise


def _see_the_end_of(children: Sequence[int]) -> None:
    for child in children:
        with suppress(ChildProcessError):  # where SIGCHLD is ignored the system does
            os.waitpid(child, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # A child of a process with threads may wait for ever for a lock of theirs: these ask for
        # none but BLAS's, and BLAS knows of forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _live(work: Work, lines: Sequence[Lines], member: int) -> NoReturn:
    """Do the work, and end this process."""
    try:
        _keep(lines, member)
        _attend(work, lines[member])
    except TeamBroken:
        pass  # whoever has broken it says why
    except BaseException as error:
        lines[member][0].send(_GONE + repr(error).encode()[:4096])
    finally:
        os._exit(0)


def _keep(lines: Sequence[Lines], member: int) -> None:
    """Close the lines of all but this member: or it would not show on them that one has died."""
    for other in {*range(len(lines))} - {member}:
        for line in lines[other].values():
            line.close()


def _attend(work: Work, lines: Lines) -> int:
    """Do a work and meet the others at every yield and at the end; return how many yields."""
    meetings = 0
    for _ in work:
        meetings += 1
        _meet(lines)
    _meet(lines)  # what they did after the last yield is done as well
    return meetings


def _meet(lines: Lines) -> None:
    for line in lines.values():
        with suppress(OSError):  # of one who is gone there may still be the reason to read
            line.send(_HERE)
    for line in lines.values():
        if _heard(line, 1) != _HERE:
            reason = _heard(line, 4096).decode() or "it was ended from outside"
            raise TeamBroken(f"a process of the training failed: {reason}")


def _heard(line: socket.socket, most: int) -> bytes:
    """Return what another one says, up to so many bytes; nothing when it is gone."""
    for _ in range(ASKS):
        try:
            return line.recv(most, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        except OSError:
            return b""
    with suppress(OSError):
        return line.recv(most)
    return b""
