"""Run tasks in lockstep: they meet at barriers, as forked processes or interleaved in one.

The shards of a network meet at a barrier thousands of times a second, after some forty calls of
NumPy each time. Threads would have to reacquire the interpreter lock after every one of these
calls, which costs a quarter of the time. Forked processes have a lock each. What one task writes
for another has to be in `shared` memory; all other changes are lost when its process ends.
"""

import math
import mmap
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import combinations
from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve_model.process.cpus import usable_cores
from mlpserve_model.process.interrupts import block_signals
from mlpserve_trainer.errors import ProcessLost

__all__ = ["BARRIER", "Lockstep", "Steps", "Task", "run_forked", "run_interleaved", "shared"]

# What a task yields for a barrier, which all tasks have to reach before any of them continues.
BARRIER: None = None

# One member's work. It yields BARRIER, and the result of each step; all tasks yield alike.
Task: TypeAlias = Iterator[float | None]

# Yields the results of the first task; returns how many there were.
Steps: TypeAlias = Generator[float, None, int]

# The sockets that connect one member to each of the others.
Sockets: TypeAlias = dict[int, socket.socket]

# How often a member polls for another before it blocks: a fraction of a millisecond. To be woken
# up costs ten times as much as to poll.
SPINS = 300
# Steps by which the speed of interleaving is measured, and runs until both ways are measured again.
PROBE_STEPS, RUNS_BETWEEN_PROBES = 8, 8
READY, FAILED = b"\1", b"\0"  # messages between members; a reason follows FAILED


class Lockstep:
    """Runs tasks forked or interleaved, whichever was faster recently.

    Forked processes are slower where other programs need the cores. Tasks are always interleaved
    where one core is usable, and on systems whose BLAS may not survive a fork.
    """

    def __init__(self) -> None:
        self._interleaved_seconds, self._forked_seconds = 0.0, 0.0  # per step; 0: not measured
        self._runs = 0

    def run(self, tasks: Sequence[Task]) -> Steps:
        """Run the tasks to their end; raises what they raise, and ProcessLost."""
        if len(tasks) == 1 or usable_cores() == 1 or sys.platform != "linux":
            return (yield from run_interleaved(tasks))
        probed, started = 0, time.perf_counter()
        if self._runs % RUNS_BETWEEN_PROBES == 0:
            probed = yield from run_interleaved(tasks, PROBE_STEPS)
            if probed < PROBE_STEPS:
                return probed
            seconds = (time.perf_counter() - started) / probed
            self._interleaved_seconds, self._forked_seconds = seconds, 0.0
        self._runs += 1
        if self._forked_seconds > self._interleaved_seconds:
            return probed + (yield from run_interleaved(tasks))
        started = time.perf_counter()
        steps = yield from run_forked(tasks)
        self._forked_seconds = (time.perf_counter() - started) / max(steps, 1)
        return probed + steps


def shared(*shape: int) -> npt.NDArray[np.float32]:
    """Return zeros in memory that forked processes share; raises MemoryError."""
    count = math.prod(shape)
    try:
        memory = mmap.mmap(-1, max(count, 1) * 4)
    except OSError as error:
        raise MemoryError(f"{count * 4} bytes of shared memory: {error.strerror}") from error
    return np.frombuffer(memory, np.float32, count).reshape(shape)


def run_interleaved(tasks: Sequence[Task], max_steps: int | None = None) -> Steps:
    """Run all tasks in this process, each up to its next barrier in turn.

    With `max_steps`, the tasks can be continued afterwards, here or in `run_forked`.
    """
    steps, ended = 0, object()
    while steps != max_steps:
        result, *_ = [next(task, ended) for task in tasks]
        if result is ended:
            break
        if isinstance(result, float):
            steps += 1
            yield result
    return steps


def run_forked(tasks: Sequence[Task]) -> Steps:
    """Run each task in a process of its own, the first one in this process.

    Raises what the first task raises, and ProcessLost when another one fails. The other
    processes have ended when the generator is exhausted or closed.
    """
    children = list[int]()
    with ExitStack() as stack:
        stack.callback(_wait_for, children)  # runs after the sockets are closed, which ends them
        sockets = _start(tasks, children, stack)
        _close_other_sockets(sockets, 0)
        try:
            return (yield from _run_task(tasks[0], sockets[0]))
        except BaseException:
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            raise


def _start(tasks: Sequence[Task], children: list[int], stack: ExitStack) -> Sequence[Sockets]:
    """Connect the members and fork all but the first; raises ProcessLost."""
    sockets: list[Sockets] = [{} for _ in tasks]
    try:
        for one, other in combinations(range(len(tasks)), 2):
            pair = socket.socketpair()
            sockets[one][other], sockets[other][one] = map(stack.enter_context, pair)
        # Signals to stop are handled by the first member; the others never unblock them.
        with block_signals():
            for member, task in enumerate(tasks[1:], start=1):
                if not (child := _fork()):
                    _child_main(task, sockets, member)
                children.append(child)
    except OSError as error:
        raise ProcessLost(f"cannot start a second training process: {error.strerror}") from error
    return sockets


def _wait_for(children: Sequence[int]) -> None:
    for child in children:
        with suppress(ChildProcessError):  # where SIGCHLD is ignored, the system waits
            os.waitpid(child, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # A child of a process with threads may block for ever on a lock of theirs. These children
        # take no lock but those of BLAS, which handles forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child_main(task: Task, sockets: Sequence[Sockets], member: int) -> NoReturn:
    """Run the task, then end this process."""
    try:
        _close_other_sockets(sockets, member)
        for _ in _run_task(task, sockets[member]):
            pass
    except ProcessLost:
        pass  # the member that failed has reported the reason
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".encode(errors="replace")
        sockets[member][0].send(FAILED + reason[:4096])
    finally:
        os._exit(0)


def _close_other_sockets(sockets: Sequence[Sockets], member: int) -> None:
    """Close the other members' ends, so that a member that dies is noticed as end of file."""
    for other in {*range(len(sockets))} - {member}:
        for line in sockets[other].values():
            line.close()


def _run_task(task: Task, sockets: Sockets) -> Steps:
    """Run a task, with a barrier wherever it asks for one and at its end."""
    steps = 0
    for result in task:
        if isinstance(result, float):
            steps += 1
            yield result
        else:
            _barrier(sockets)
    _barrier(sockets)  # all have finished what follows their last barrier
    return steps


def _barrier(sockets: Sockets) -> None:
    """Return when all members have reached this barrier; raises ProcessLost."""
    for line in sockets.values():
        with suppress(OSError):  # a member that has gone may have left its reason to read
            line.send(READY)
    for line in sockets.values():
        if _recv(line, 1) != READY:
            reason = _recv(line, 4096).decode() or "it was killed"
            raise ProcessLost(f"a training process failed: {reason}")


def _recv(line: socket.socket, max_bytes: int) -> bytes:
    """Return what another member has sent, nothing if it has gone."""
    for _ in range(SPINS):
        try:
            return line.recv(max_bytes, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        except OSError:
            return b""
    with suppress(OSError):
        return line.recv(max_bytes)
    return b""
