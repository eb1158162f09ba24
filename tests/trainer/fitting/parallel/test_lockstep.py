import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mlpserve_trainer import TrainerError
from mlpserve_trainer.fitting.parallel.lockstep import (
    TRIAL,
    Team,
    Work,
    in_turns,
    shared,
    side_by_side,
)

Run = Callable[[Sequence[Work]], object]
EVERY_WAY = pytest.mark.parametrize("run", [in_turns, side_by_side, Team().run])


@EVERY_WAY
@pytest.mark.parametrize("members", [1, 2, 3])
def test_nobody_goes_on_before_all_have_come_to_the_meeting(run: Run, members: int) -> None:
    steps, seen = shared(members), shared(members)

    def work(member: int) -> Iterator[None]:
        for step in range(1, 400):
            steps[member] = step
            yield
            seen[member] += steps.min() >= step
            yield

    run([work(member) for member in range(members)])
    assert seen.tolist() == [399] * members


@EVERY_WAY
def test_what_is_done_after_the_last_meeting_is_done(run: Run) -> None:
    done = shared(2)

    def work(member: int) -> Iterator[None]:
        yield
        time.sleep(0.2 * member)
        done[member] = 1

    run([work(0), work(1)])
    assert done.tolist() == [1, 1]


def test_the_members_work_side_by_side_in_processes_of_their_own() -> None:
    processes = shared(3)

    def work(member: int) -> Iterator[None]:
        processes[member] = os.getpid() % 2**20
        while not processes.all():
            time.sleep(0.01)
        yield

    assert side_by_side([work(0), work(1), work(2)]) == 1
    assert processes[0] == os.getpid() % 2**20
    assert len(set(processes.tolist())) == 3


def test_in_turns_is_one_process() -> None:
    processes = set()

    def work() -> Iterator[None]:
        processes.add(os.getpid())
        yield

    assert in_turns([work(), work(), work()]) == 1
    assert processes == {os.getpid()}


@pytest.mark.parametrize("run", [in_turns, side_by_side])
def test_an_error_of_the_first_work_is_raised_and_ends_the_others(run: Run) -> None:
    passed = shared(1)

    def fails() -> Iterator[None]:
        yield
        raise ValueError("no luck")

    def waits() -> Iterator[None]:
        yield
        yield
        passed[0] = 1

    with pytest.raises(ValueError, match="no luck"):
        run([fails(), waits()])
    assert not passed[0]


@pytest.mark.parametrize("late", [False, True])
def test_an_error_of_another_work_is_named_and_ends_the_first(late: bool) -> None:
    passed = []

    def fails() -> Iterator[None]:
        yield
        if late:
            yield
        raise ValueError("no luck")

    def waits() -> Iterator[None]:
        yield
        yield
        passed.append(True)

    with pytest.raises(TrainerError, match=r"ValueError\('no luck'\)"):
        side_by_side([waits(), fails()])
    assert passed == [True] * late


def test_a_process_that_is_killed_is_missed() -> None:
    def dies() -> Iterator[None]:
        yield
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainerError, match="a process of the training"):
        side_by_side([_patient(), dies(), _patient()])


def test_children_that_the_system_sees_off_are_not_missed() -> None:
    script = """
import signal
from mlpserve_trainer.fitting.parallel.lockstep import side_by_side
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(side_by_side([iter([None]), iter([None])]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_without_another_process_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(TrainerError, match="Resource temporarily unavailable"):
        side_by_side([_patient(), _patient()])


def test_shared_memory_that_is_not_there_is_missing_memory() -> None:
    with pytest.raises(MemoryError):
        shared(2**60)


def test_an_interruption_does_not_wait_for_one_who_never_comes() -> None:
    def interrupted() -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    def sleeps() -> Iterator[None]:
        yield
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side([interrupted(), sleeps()])
    assert time.monotonic() - started < 30


def test_only_the_first_member_hears_a_signal_to_stop() -> None:
    meetings = shared(1)

    def work(member: int) -> Iterator[None]:
        for _ in range(50):
            if member:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                meetings[0] += 1
            yield

    side_by_side([work(0), work(1)])
    assert meetings[0] == 50


def test_nobody_outlives_a_parent_that_is_killed() -> None:
    script = """
import os, sys, time
from mlpserve_trainer.fitting.parallel.lockstep import side_by_side
def work(member):
    if member:
        os.write(1, b"%d\\n" % os.getpid())
    while True:
        time.sleep(0.001)
        yield
side_by_side([work(0), work(1), work(2)])
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        children = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        process.wait()
        # At its end they let go of their standard output, which is this pipe.
        assert process.stdout.read() == b""
    assert len(set(children)) == 2


def test_nothing_is_left_open() -> None:
    before = list(Path("/proc/self/fd").iterdir())
    side_by_side([iter([None]), iter([None]), iter([None])])
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


@EVERY_WAY
def test_what_numpy_does_about_overflow_is_what_the_caller_said(run: Run) -> None:
    def work() -> Iterator[None]:
        yield
        np.multiply(np.float32(1e30), np.float32(1e30))

    with np.errstate(over="ignore"):
        run([work(), work()])
    with (
        np.errstate(over="raise"),
        pytest.raises((FloatingPointError, TrainerError), match="overflow"),
    ):
        run([work(), work()])


def test_works_can_be_left_and_taken_up_again_at_any_meeting() -> None:
    steps = shared(2)

    def work(member: int) -> Iterator[None]:
        for _ in range(10):
            steps[member] += 1
            yield

    works = [work(0), work(1)]
    assert in_turns(works, 3) == 3
    assert steps.tolist() == [3, 3]
    assert in_turns(works, 2) == 2
    assert side_by_side(works) == 5
    assert steps.tolist() == [10, 10]


@pytest.mark.parametrize("slow", ["alone", "together"])
def test_a_team_goes_the_way_that_is_faster(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpserve_trainer.fitting.parallel.lockstep.cores", lambda: 2)
    here, team, meetings = os.getpid(), Team(), shared(2)

    def second() -> Iterator[None]:
        for _ in range(40):
            alone = os.getpid() == here
            meetings[int(alone)] += 1
            time.sleep(0.02 if alone == (slow == "alone") else 0)
            yield

    for _ in range(6):
        team.run([iter([None] * 40), second()])
    together, alone = meetings.tolist()
    assert together + alone == 240
    assert alone == TRIAL if slow == "alone" else together <= 40


def _patient() -> Iterator[None]:
    while True:
        yield


def children() -> str:
    return Path("/proc/thread-self/children").read_text()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before
