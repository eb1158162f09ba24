import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlpserve_trainer import TrainerError
from mlpserve_trainer.fitting.parallel.lockstep import (
    BARRIER,
    PROBE_STEPS,
    Lockstep,
    Steps,
    Task,
    run_forked,
    run_interleaved,
    shared,
)

Run = Callable[[Sequence[Task]], Iterable[float]]
EVERY_WAY = pytest.mark.parametrize("run", [run_interleaved, run_forked, Lockstep().run])


@EVERY_WAY
@pytest.mark.parametrize("members", [1, 2, 3])
def test_no_task_continues_before_all_have_reached_the_barrier(run: Run, members: int) -> None:
    steps, seen = shared(members), shared(members)

    def task(member: int) -> Task:
        for step in range(1, 400):
            steps[member] = step
            yield BARRIER
            seen[member] += steps.min() >= step
            yield BARRIER

    list(run([task(member) for member in range(members)]))
    assert seen.tolist() == [399] * members


@EVERY_WAY
def test_what_follows_the_last_barrier_is_done(run: Run) -> None:
    done = shared(2)

    def task(member: int) -> Task:
        yield BARRIER
        time.sleep(0.2 * member)
        done[member] = 1

    list(run([task(0), task(1)]))
    assert done.tolist() == [1, 1]


def test_forked_tasks_run_in_processes_of_their_own() -> None:
    processes = shared(3)

    def task(member: int) -> Task:
        processes[member] = os.getpid() % 2**20
        while not processes.all():
            time.sleep(0.01)
        yield BARRIER

    assert not list(run_forked([task(0), task(1), task(2)]))
    assert processes[0] == os.getpid() % 2**20
    assert len(set(processes.tolist())) == 3


def test_interleaved_tasks_run_in_one_process() -> None:
    processes = set()

    def task() -> Task:
        processes.add(os.getpid())
        yield BARRIER

    assert not list(run_interleaved([task(), task(), task()]))
    assert processes == {os.getpid()}


@pytest.mark.parametrize("run", [run_interleaved, run_forked])
def test_an_error_of_the_first_task_is_raised_and_ends_the_others(run: Run) -> None:
    passed = shared(1)

    def fails() -> Task:
        yield BARRIER
        raise ValueError("no luck")

    def waits() -> Task:
        yield BARRIER
        yield BARRIER
        passed[0] = 1

    with pytest.raises(ValueError, match="no luck"):
        list(run([fails(), waits()]))
    assert not passed[0]


@pytest.mark.parametrize("late", [False, True])
def test_an_error_of_another_task_is_named_and_ends_the_first(late: bool) -> None:
    passed = []

    def fails() -> Task:
        yield BARRIER
        if late:
            yield BARRIER
        raise ValueError("no luck")

    def waits() -> Task:
        yield BARRIER
        yield BARRIER
        passed.append(True)

    with pytest.raises(TrainerError, match="ValueError: no luck"):
        list(run_forked([waits(), fails()]))
    assert passed == [True] * late


def test_a_process_that_is_killed_is_noticed() -> None:
    def dies() -> Task:
        yield BARRIER
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainerError, match="a training process failed: it was killed"):
        list(run_forked([_patient(), dies(), _patient()]))


def test_children_that_the_system_waits_for_are_no_error() -> None:
    script = """
import signal
from mlpserve_trainer.fitting.parallel.lockstep import run_forked
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(list(run_forked([iter([None, 1.0]), iter([None, 1.0])])))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[1.0]\n", "")


def test_a_process_that_cannot_be_forked_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(TrainerError, match="Resource temporarily unavailable"):
        list(run_forked([_patient(), _patient()]))


def test_shared_memory_that_is_not_available_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        shared(2**60)


def test_an_interruption_does_not_wait_for_the_other_tasks() -> None:
    def interrupted() -> Task:
        yield BARRIER
        raise KeyboardInterrupt

    def sleeps() -> Task:
        yield BARRIER
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_forked([interrupted(), sleeps()]))
    assert time.monotonic() - started < 30


def test_only_the_first_member_handles_a_signal_to_stop() -> None:
    signals = shared(1)

    def task(member: int) -> Task:
        for _ in range(50):
            if member:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                signals[0] += 1
            yield BARRIER

    list(run_forked([task(0), task(1)]))
    assert signals[0] == 50


def test_no_process_outlives_a_parent_that_is_killed() -> None:
    script = """
import os, sys, time
from mlpserve_trainer.fitting.parallel.lockstep import BARRIER, run_forked
def task(member):
    if member:
        os.write(1, b"%d\\n" % os.getpid())
    while True:
        time.sleep(0.001)
        yield BARRIER
list(run_forked([task(0), task(1), task(2)]))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        children = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        process.wait()
        # They close their standard output, which is this pipe, when they end.
        assert process.stdout.read() == b""
    assert len(set(children)) == 2


def test_nothing_is_left_open() -> None:
    before = list(Path("/proc/self/fd").iterdir())
    list(run_forked([iter([None]), iter([None]), iter([None])]))
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


@EVERY_WAY
def test_tasks_handle_overflow_as_the_caller_does(run: Run) -> None:
    def task() -> Task:
        yield BARRIER
        np.multiply(np.float32(1e30), np.float32(1e30))

    with np.errstate(over="ignore"):
        list(run([task(), task()]))
    with (
        np.errstate(over="raise"),
        pytest.raises((FloatingPointError, TrainerError), match="overflow"),
    ):
        list(run([task(), task()]))


def test_tasks_can_be_continued_after_any_step() -> None:
    steps = shared(2)

    def task(member: int) -> Task:
        for _ in range(10):
            steps[member] += 1
            yield BARRIER
            yield float(steps[member])

    tasks = [task(0), task(1)]
    assert list(run_interleaved(tasks, 3)) == [1, 2, 3]
    assert steps.tolist() == [3, 3]
    assert list(run_interleaved(tasks, 2)) == [4, 5]
    assert list(run_forked(tasks)) == [6, 7, 8, 9, 10]
    assert steps.tolist() == [10, 10]


@EVERY_WAY
def test_the_results_of_the_first_task_are_passed_on(run: Run) -> None:
    def task(member: int) -> Task:
        for step in range(30):
            yield BARRIER
            yield float(step + 100 * member)

    assert list(run([task(0), task(1)])) == list(range(30))


@EVERY_WAY
def test_tasks_that_are_abandoned_leave_nothing_behind(run: Callable[..., Steps]) -> None:
    def task() -> Task:
        while True:
            yield BARRIER
            yield 1.0

    with closing(run([task(), task()])) as steps:
        assert list(islice(steps, 20)) == [1.0] * 20


@pytest.mark.parametrize("slow", ["interleaved", "forked"])
def test_the_faster_way_is_taken(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, lockstep, steps = os.getpid(), Lockstep(), shared(2)
    seconds = np.array([1, 2] if slow == "interleaved" else [2, 1])  # of a step, each way
    module = "mlpserve_trainer.fitting.parallel.lockstep"
    monkeypatch.setattr(f"{module}.usable_cores", lambda: 2)
    monkeypatch.setattr(f"{module}.time", SimpleNamespace(perf_counter=lambda: steps @ seconds))

    def second() -> Task:
        for _ in range(40):
            steps[int(os.getpid() == here)] += 1
            yield 0.0

    for _ in range(6):
        assert len(list(lockstep.run([iter([0.0] * 40), second()]))) == 40
    forked, interleaved = steps.tolist()
    assert forked + interleaved == 240
    assert interleaved == PROBE_STEPS if slow == "interleaved" else forked == 40 - PROBE_STEPS


def _patient() -> Task:
    while True:
        yield BARRIER


def children() -> str:
    return Path("/proc/thread-self/children").read_text()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before
